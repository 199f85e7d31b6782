"""Named streams: the same name gives the same numbers, another name gives unrelated ones."""

import itertools

import numpy as np
import pytest

from lab import seeds


def test_a_stream_is_the_same_in_every_process():
    """Fixed numbers: a change of them changes every result that was ever published with a seed."""
    assert seeds.stream(0, "init", 0) == 900553517829159482
    assert seeds.generator(3, "order", 1, 2).permutation(5).tolist() == [4, 1, 0, 2, 3]


def test_streams_of_different_names_differ():
    names = list(itertools.product((0, 1, 12), seeds.CAUSES, ((), (0,), (1,), (2,), (0, 1), (1, 0), (12,), (1, 2))))
    keys = {seeds.stream(seed, cause, *indices) for seed, cause, indices in names}
    assert len(keys) == len(names)
    assert all(0 <= key < 2**63 for key in keys)


def test_neighbouring_streams_are_uncorrelated():
    draws = np.stack([seeds.generator(0, "resample", d).standard_normal(20_000) for d in range(4)])
    correlations = np.corrcoef(draws)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(20_000)


def test_a_typing_error_in_a_cause_is_an_error_not_a_stream():
    with pytest.raises(ValueError, match="unknown cause 'inti'"):
        seeds.stream(0, "inti", 0)


def test_mixing_words_is_splitmix64():
    """First outputs of SplitMix64 from state 0, from the published generator."""
    states = np.array([0, 0x9E3779B97F4A7C15], dtype=np.uint64)
    assert seeds.mix64(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
