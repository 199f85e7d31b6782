"""`verify` sees any change of any file or record, and names it."""

import json
import math
import sqlite3
from contextlib import closing

import pytest

from lab import spool, study, verify
from lab.errors import SpecError, StudyInUse
from lab.storage import coordinator_lock
from tests import faults


@pytest.fixture(scope="module")
def finished(new_home):
    with faults.memory() as folder, faults.fake_trainer():
        home = new_home(folder / "finished")
        faults.run(home, faults.small(3))
        yield home


@pytest.fixture
def home(finished, request):
    return faults.copy(finished, finished.root.with_name(f"copy-{abs(hash(request.node.nodeid))}"))


def damage(home):
    return verify.verify(faults.NAME, home=home).damage


def artifacts(home):
    return sorted(path for path in home.artifacts_of(faults.NAME).glob("*/artifacts/*"))


def change(database, statement, *values):
    with closing(sqlite3.connect(database)) as connection, connection:
        assert connection.execute(statement, values).rowcount >= 1


def test_a_whole_study_has_no_damage_wherever_its_folder_was_moved_to(home):
    found = verify.verify(faults.NAME, home=home)
    assert (found.damage, found.notes) == ([], [])
    assert found.n_files == len(artifacts(home)) + 2  # and the databases
    assert found.n_records == 4 + 3  # runs and trials


def test_any_changed_cut_or_missing_artifact_is_named(home):
    by_run = {}
    for path in artifacts(home):
        by_run.setdefault(path.parent, []).append(path)
    names = {path.name for path in artifacts(home)}
    assert names >= {"config.json", "curves.parquet", "manifest.json", "predictions.npz"}
    for k in range(max(map(len, by_run.values()))):
        changed = [files[k] for files in by_run.values() if k < len(files)]  # a file of each run at a time
        contents = [path.read_bytes() for path in changed]
        for harm in ("flip", "cut", "miss"):
            for path, content in zip(changed, contents, strict=True):
                middle = len(content) // 2
                path.write_bytes(
                    content[:middle] + bytes([content[middle] ^ 4]) * (harm == "flip") + content[middle + 1 :]
                )
                if harm == "miss":
                    path.unlink()
            lines = damage(home)
            assert all(any(str(path) in line for line in lines) for path in changed), (harm, changed)
        for path, content in zip(changed, contents, strict=True):
            path.write_bytes(content)
    assert damage(home) == []


def test_a_manifest_that_says_the_same_in_other_bytes_is_named(home):
    path = next(path for path in artifacts(home) if path.name == "manifest.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(b" ", b"", 1))
    assert json.loads(path.read_bytes()) == json.loads(content)
    (line,) = damage(home)
    assert str(path) in line


@pytest.mark.parametrize(
    ("database", "statement", "message"),
    [
        ("mlflow_db", "UPDATE latest_metrics SET value = 7 WHERE key = 'risk'", "metric risk"),
        ("mlflow_db", "UPDATE latest_metrics SET is_nan = 1 WHERE key = 'risk'", "metric risk"),
        ("mlflow_db", "UPDATE params SET value = '7' WHERE key = 'width'", "param width"),
        ("mlflow_db", "UPDATE tags SET value = 'failed' WHERE key = 'outcome'", "tag outcome"),
        ("mlflow_db", "UPDATE tags SET value = 'x' WHERE key = 'outcome_digest'", "not the one that was published"),
        ("mlflow_db", "DELETE FROM tags WHERE key = 'key' AND value = 'explore-0001'", "neither published nor"),
        ("mlflow_db", "UPDATE tags SET value = 'explore-0000' WHERE value = 'explore-0001'", "2 runs of explore-0000"),
        ("optuna_db", "UPDATE trial_values SET value = value + 1e-9", "differ about explore-0000: objective"),
        ("optuna_db", "DELETE FROM trial_values", "differ about explore-0000: objective"),
        ("optuna_db", "UPDATE trial_params SET param_value = param_value + 1 WHERE param_name = 'width'", "width"),
        ("optuna_db", "UPDATE trial_user_attributes SET value_json = '\"failed\"' WHERE key = 'outcome'", "outcome"),
    ],
)
def test_a_changed_record_is_seen_where_two_records_differ(home, database, statement, message):
    change(getattr(home, database), statement)
    assert any(message in line for line in damage(home))


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        (math.nan, math.nan, True), (math.nan, 0.5, False), (0.5, math.nan, False), (None, None, True),
        (None, 0.5, False), (0.5, None, False), (0.5, 0.5 + 1e-12, True), (0.5, 0.5 + 1e-8, False),
    ],
)  # fmt: skip
def test_numbers_that_are_not_there_or_are_none_are_compared_too(one, other, are_same):
    assert verify._same(one, other) is are_same


def test_a_trial_that_optuna_has_lost_is_seen(home):
    change(home.optuna_db, "DELETE FROM trials WHERE number = 2")
    assert any("Optuna does not know: explore-0002" in line for line in damage(home))


@pytest.mark.parametrize("database", ["mlflow_db", "optuna_db"])
def test_a_damaged_page_of_a_database_is_seen(home, database):
    path = getattr(home, database)
    content = bytearray(path.read_bytes())
    for page in range(8, 40):
        content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    path.write_bytes(content)
    found = verify.Found(faults.NAME)
    verify._database(path, found)
    assert found.damage
    assert str(path) in found.damage[0]


def test_what_waits_in_the_spool_is_checked_too(home):
    for number, name in ((7, "config.json"), (8, None)):
        files = {"config.json": b"{}"}
        directory = spool.write_outcome(
            home, faults.NAME, "explore", number, files, status="finished", started=0.0, finished=1.0
        )
        if name:
            (directory / name).write_bytes(b"[]")
    found = verify.verify(faults.NAME, home=home)
    assert len(found.damage) == 1
    assert "explore-0007/config.json" in found.damage[0]
    assert any("1 outcomes wait" in line for line in found.notes)


def test_the_command_says_what_is_damaged_and_its_exit_code_is_that_of_storage(home, monkeypatch, capsys):
    monkeypatch.chdir(home.root)
    assert study.main(["verify", faults.NAME]) == 0
    assert "7 records" in capsys.readouterr().err
    artifacts(home)[0].write_bytes(b"")
    assert study.main(["verify", faults.NAME, "--json"]) == 5
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["damage"]) == 1
    assert str(artifacts(home)[0]) in captured.err


def test_a_study_that_runs_or_is_not_there_is_not_verified(home):
    with coordinator_lock(home, faults.NAME), pytest.raises(StudyInUse):
        verify.verify(faults.NAME, home=home)
    with pytest.raises(SpecError, match="no study 'other'"):
        verify.verify("other", home=home)
