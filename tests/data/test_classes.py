"""Some classes of a data set are those examples of it, and keep apart what it keeps apart."""

import numpy as np
import pytest

from lab.data.classes import parse
from lab.data.datasets import load
from lab.errors import SpecError


def test_the_parts_are_those_examples_of_the_whole_with_labels_counted_anew():
    whole, some = load("digits", seed=0), load("digits[5-7,1]", seed=0)
    assert some.class_names == ("5", "6", "7", "1")
    for part in ("pool", "validation", "test"):
        theirs, ours = getattr(whole, part), getattr(some, part)
        kept = [k for k, label in enumerate(theirs.labels) if label in (5, 6, 7, 1)]
        assert ours.images.tobytes() == theirs.images[kept].tobytes()
        assert [(5, 6, 7, 1)[label] for label in ours.labels] == theirs.labels[kept].tolist()
    assert some.digest != whole.digest
    assert some.digest == load("digits[5-7,1]", seed=0).digest


def test_sizes_hold_for_the_classes_that_are_chosen():
    some = load("digits[0-4]", seed=0, n_validation=30, n_test=50)
    assert (len(some.validation), len(some.test)) == (30, 50)
    assert set(np.unique(some.test.labels)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("name", "sizes", "said"),
    [
        ("digits[5-12]", {}, "digits has the classes 0 to 9"),
        ("digits[3]", {}, "name two classes or more"),
        ("digits[1,1,2]", {}, "each once"),
        ("digits[0-4]", {"n_test": 1000}, r"n_test = 1000: digits\[0-4\] has \d+ examples in the test set of digits"),
        ("gaussians[0,1]", {}, "gaussians has no examples of one class for certain"),
        ("nothing[0-4]", {}, "data set 'nothing' is unknown"),
        ("digits[a]", {}, r"data set 'digits\[a\]' is unknown"),
    ],
)
def test_what_cannot_be_chosen_is_said_in_a_sentence(name, sizes, said):
    with pytest.raises(SpecError, match=said):
        load(name, seed=0, **sizes)


def test_the_name_of_a_whole_data_set_is_left_alone():
    assert parse("digits") is None
