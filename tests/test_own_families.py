"""A model that a study file defines goes all the way from `run` to the report; what is wrong is said at once."""

import json

import pytest

from lab import own_families, study
from lab.errors import SpecError
from lab.fusion import shape_of
from lab.knobs import TrialConfig, check_knob
from lab.spec import Choice, Study
from tests.command_line import forked_command

FILE = '''
"""Does a module of my own learn?"""
from torch import nn
from lab.spec import Choice, Replication, Study


def perceptron(image_shape, n_classes, config):
    n = image_shape[0] * image_shape[1] * image_shape[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(n, config.width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(config.width, {out})
    )


STUDY = Study(
    question="Does a module of my own learn?",
    data="digits",
    space=dict(width=Choice(4, 8, role="scientific")),
    fixed=dict(family="{family}", epochs=4, n_train=60, dropout=0.1),
    replication=Replication(scheme="bootstrap", n_resamples=2, n_inits=2),
    sampler="grid", n_trials=2, n_test=40, n_validation=20, learning_curve=(),
)
'''


def written(tmp_path, *, family="perceptron", out="n_classes"):
    (tmp_path / "mine.py").write_text(FILE.format(family=family, out=out))


@pytest.mark.slow
def test_a_study_of_a_users_module_runs_to_its_report_in_a_worker_process(tmp_path):
    written(tmp_path)
    found = forked_command("run", "mine.py", "--engine", "process", "--workers", "1", "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    summary = json.loads(found.stdout)
    assert summary["counts"]["finished"] == 2
    assert (tmp_path / "reports" / "mine.html").exists()
    assert "one after the other" not in found.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"out": "7"}, "family 'perceptron': for images (2, 1, 8, 8) the module returns (2, 7): return logits (2, 10)"),
        ({"family": "perceptorn"}, "family 'perceptorn' is unknown: choose one of mlp, cnn, resnet, pretrained, or"),
        ({"family": "STUDY"}, "family 'STUDY' is unknown"),
    ],
)
def test_a_bad_module_is_one_line_and_nothing_is_written(tmp_path, monkeypatch, capsys, change, says):
    written(tmp_path, **change)
    monkeypatch.chdir(tmp_path)
    assert study.main(["run", "mine.py"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "mine.py: " in line
    assert says in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_a_family_given_on_the_command_line_is_looked_for_in_the_study_file(tmp_path, monkeypatch, capsys):
    written(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert study.main(["run", "mine.py", "--set", "family=mine"]) == 2
    assert "mine.py: family 'mine' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no such", "no-such", "", "3d"])
def test_a_name_that_is_no_functions_is_no_family(name):
    with pytest.raises(SpecError, match=r"family = '.*' is unknown: choose one of mlp, cnn, resnet"):
        check_knob("family", name, where="fixed")


def test_the_families_of_a_study_are_found_wherever_they_are_named():
    def families(**fields):
        return own_families.names(Study(question="?", data="digits", **fields))

    assert families(fixed={"width": 3}) == []
    assert families(fixed={"family": "one"}) == ["one"]
    assert families(space={"family": Choice("mlp", "one", "two")}) == ["one", "two"]
    assert families(fixed={"family": "cnn"}, variants={"a": {}, "b": {"family": "one"}}) == ["one"]


def test_trials_of_a_users_module_share_a_pack_only_if_no_knob_differs():
    first, second = (TrialConfig(family="one", dropout=rate) for rate in (0.1, 0.2))
    assert shape_of(first) != shape_of(second)
    assert shape_of(first) == shape_of(TrialConfig(family="one", dropout=0.1))


def test_a_checkpoint_of_a_users_module_belongs_to_the_file_that_defines_it(tmp_path):
    written(tmp_path)
    path = str(tmp_path / "mine.py")
    before = own_families.digest("perceptron", path)
    assert own_families.digest("mlp", path) is None
    written(tmp_path, out="10")
    assert own_families.digest("perceptron", path) != before
