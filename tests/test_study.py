import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest

from lab import errors, study, study_file
from lab.errors import SpecError
from lab.spec import Choice, Int, Study
from lab.storage import Home
from tests.test_workers import alive

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "sklearn",
    "optuna",
    "mlflow",
    "plotly",
    "jinja2",
    "pyarrow",
    "sqlalchemy",
)
TOY = '''
"""Is it a toy?"""
from lab.spec import Choice, Float, Int, Replication, Study
from tests.fake_training import fake

STUDY = Study(
    question="Is it a toy?",
    data="fake",
    space=dict(learning_rate=Float(1e-4, 1.0, log=True), width=Int(4, 64, log=True), activation=Choice("relu", "tanh")),
    fixed=dict(epochs=3, n_train=40),
    replication=Replication("disjoint", 3, 4),
    n_trials=6,
    learning_curve=(1.0, 0.5),
)
'''
LIGHT = TOY.replace("from tests.fake_training import fake\n", "")


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "toy.py").write_text(LIGHT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lab.study", *words],
        cwd=cwd, capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip


def one_line_error(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


# --- at once ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["list", "--json"], ["run", "nowhere"]])
def test_help_list_and_slips_import_nothing_heavy(project, words):
    code = (
        "import sys; from lab import study\n"
        "try: study.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"


def test_the_command_line_is_small():
    assert set(study.build_parser()._subparsers._group_actions[0].choices) == {
        "list", "run", "status", "report", "ui", "publish", "verify", "decompose",
    }  # fmt: skip


def test_list_names_each_study_and_its_question_and_a_broken_one_does_not_hide_the_others(project, capsys):
    (project / "studies" / "broken.py").write_text("from lab.spec import Study\nSTUDY = Study(question='', data='x')\n")
    (project / "studies" / "_helper.py").write_text("raise SystemExit\n")
    assert study.main(["list", "--json"]) == 0
    captured = capsys.readouterr()
    rows = {row["name"]: row for row in json.loads(captured.out)}
    assert set(rows) == {"toy", "broken"}
    assert rows["toy"]["question"] == "Is it a toy?"
    assert "broken.py:2: question: say in one sentence" in rows["broken"]["error"]
    assert captured.err.splitlines()[1] == "toy     Is it a toy?"
    assert study.main(["list"]) == 0
    assert capsys.readouterr().out == ""


# --- one clear line for each slip -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["rum", "toy"], "invalid choice: 'rum'"),
        (["run"], "name"),
        (["run", "toy", "--trials", "many"], "--trials"),
        (["run", "toy", "--engine", "abacus"], "--engine"),
        (["run", "toy", "--speed", "9"], "--speed"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(project, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        study.main(words)
    assert stop.value.code == 2
    assert message in one_line_error(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "tay"], "there is no study 'tay': choose one of toy"),
        (["run", "../toy"], "there is no study file"),
        (["run", "to y"], "not a usable name"),
        (["run", "toy", "--set", "widht=3"], "unknown knob 'widht'"),
        (["run", "toy", "--set", "width=wide"], "width = 'wide' has the wrong type"),
        (["run", "toy", "--set", "width=0"], "width = 0 is out of range"),
        (["run", "toy", "--set", "width"], "write --set knob=value"),
        (["run", "toy", "--set", "width=3", "--set", "width=4"], "width: given twice"),
        (["run", "toy", "--data", "../x"], "data set '../x' is not a usable name"),
        (["run", "toy", "--trials", "0"], "n_trials = 0"),
        (["status", "toy"], "no study 'toy' is stored here"),
        (["decompose", "nothing.npz"], "there is no file nothing.npz"),
    ],
)
def test_an_impossible_request_is_one_line_and_exit_code_2(project, capsys, words, message):
    assert study.main(words) == 2
    assert message in one_line_error(capsys)
    assert [path.name for path in project.iterdir()] == ["studies"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("STUDY = (\n", "toy.py:1: '(' was never closed"),
        ("import lab\n\nx = 1 / 0\n", "toy.py:3: ZeroDivisionError: division by zero"),
        ("from nowhere import x\n", "toy.py:1: ModuleNotFoundError: No module named 'nowhere'"),
        ("x = 1\n", "toy.py: it has to define STUDY = Study(…)"),
        ("STUDY = 3\n", "toy.py: it has to define STUDY = Study(…)"),
        (LIGHT.replace("width=Int(4, 64", "width=Int(64, 4"), "toy.py:8: Int(64, 4): the range 64 to 4 is empty"),
        (LIGHT.replace("width=", "widht="), "toy.py:5: space: unknown knob 'widht': did you mean width"),
        ("def f():\n    return {}['a']\n\nf()\n", "toy.py:2: KeyError: 'a'"),
    ],
)
def test_an_error_in_a_study_file_is_one_line_that_names_file_and_line(project, capsys, text, message):
    (project / "studies" / "toy.py").write_text(text)
    assert study.main(["run", "toy"]) == 2
    assert message in one_line_error(capsys)
    assert not (project / "mlruns").exists()


def test_a_study_file_may_be_given_by_its_path(project, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "mine.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(LIGHT)
    assert study_file.find(str(elsewhere)) == elsewhere
    assert study_file.load(elsewhere).question == "Is it a toy?"
    assert list(elsewhere.parent.iterdir()) == [elsewhere]  # no __pycache__
    bad = elsewhere.with_name("not usable.py")
    bad.write_text(LIGHT)
    with pytest.raises(SpecError, match="not a usable name"):
        study_file.find(str(bad))


def test_flags_that_change_the_question_make_a_study_of_their_own():
    base = Study(question="?", data="digits", space=dict(width=Int(4, 64), activation=Choice("relu", "tanh")),
                 fixed=dict(epochs=60))  # fmt: skip

    def named(**flags):
        return study_file.change(base, "sweep", **flags)

    assert named() == (base, "sweep")
    changed, name = named(data="fashion_mnist", settings={"width": 8, "family": "cnn"}, smoke=True)
    assert name == "sweep,data=fashion_mnist,family=cnn,width=8,smoke"
    assert (changed.data, changed.fixed["width"], changed.fixed["family"]) == ("fashion_mnist", 8, "cnn")
    assert set(changed.space) == {"activation"}
    assert changed.n_trials == 4
    # what the file says already changes nothing, and more trials are the same study
    assert named(data="digits", settings={"epochs": 60, "family": "mlp"})[1] == "sweep"
    grown, name = named(n_trials=99)
    assert (grown.n_trials, name) == (99, "sweep")
    assert named(smoke=True, n_trials=7)[0].n_trials == 7
    assert named(settings={"learning_rate": 1e-05})[1] == "sweep,learning_rate=1e-05"


# --- decompose --------------------------------------------------------------------------------------------------------


def predictions(n_resamples=4, n_inits=3, n_points=20, n_classes=3):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(n_classes), size=(n_resamples, n_inits, n_points))
    return {"probabilities": p, "labels": rng.integers(n_classes, size=n_points)}


def test_decompose_takes_anyones_predictions(project, capsys):
    arrays = predictions()
    np.savez("crossed.npz", **arrays)
    assert study.main(["decompose", "crossed.npz", "--json"]) == 0
    captured = capsys.readouterr()
    parts = json.loads(captured.out)
    losses = ((arrays["probabilities"] - np.eye(3)[arrays["labels"]]) ** 2).sum(-1)
    assert parts["risk"] == pytest.approx(losses.mean(), abs=1e-12)
    assert parts["bias_sq"] + parts["variance"] == pytest.approx(parts["risk"], abs=1e-12)
    assert "bias² + noise" in captured.err
    # the same replicas as independent ones: variance is their unbiased variance
    flat = arrays["probabilities"].reshape(12, 20, 3)
    np.savez("independent.npz", predictions=flat.astype(np.float32), labels_N=arrays["labels"])
    assert study.main(["decompose", "independent.npz", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert parts["variance"] == pytest.approx(flat.var(axis=0, ddof=1).sum(-1).mean(), abs=1e-6)
    assert parts["variance_init"] is None


def test_decompose_takes_logits_other_losses_and_designs(project, capsys):
    arrays = predictions()
    np.savez("logits.npz", logits=np.log(arrays["probabilities"]), labels=arrays["labels"])
    assert study.main(["decompose", "logits.npz", "--loss", "cross_entropy", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    right = np.take_along_axis(arrays["probabilities"], arrays["labels"][None, None, :, None], axis=-1)
    assert parts["risk"] == pytest.approx(-np.log(right).mean(), abs=1e-12)
    assert parts["bias"] + parts["variance"] == pytest.approx(parts["risk"], abs=1e-12)
    assert study.main(["decompose", "logits.npz", "--design", "nested", "--level", "0.5", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert (parts["design"], parts["level"], parts["variance_interaction"]) == ("nested", 0.5, None)
    # predicted classes alone, of few replicas
    hard = arrays["probabilities"].argmax(axis=-1).reshape(12, 20)[:5]
    np.savez("hard.npz", predictions=hard, labels=arrays["labels"])
    assert study.main(["decompose", "hard.npz", "--loss", "zero_one"]) == 0
    text = capsys.readouterr().err
    assert f"{(hard != arrays['labels']).mean():.5f}" in text
    assert "Kohavi–Wolpert bias² + noise" in text
    assert "fewer than 10 replicas" in text
    assert study.main(["decompose", "hard.npz", "--level", "95"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("labels"), "no array 'labels': it holds probabilities"),
        (lambda a: a.pop("probabilities"), "no array 'probabilities'"),
        (
            lambda a: a.update(probabilities=a["probabilities"][0, 0]),
            "(D, I, K, N, C) or (R, N, C)",
        ),
        (lambda a: a.update(probabilities=np.ones((2, 2, 20, 3), int)), "int64"),
        (lambda a: a.update(probabilities=a["probabilities"] * 3 - 1), "run from"),
        (lambda a: a.update(probabilities=a["probabilities"] * 0.5), "sum to"),
        (lambda a: a["probabilities"].__setitem__((1, 1, 5, 2), np.nan), "NaN"),
        (lambda a: a.update(labels=a["labels"][:-1]), "labels have shape (19,)"),
        (lambda a: a.update(labels=a["labels"] + 1), "labels run from 1 to 3"),
        (lambda a: a.update(labels=a["labels"] + 0.5), "labels are float64"),
        (lambda a: a.update(posterior=np.full((20, 3), 0.5)), "posterior"),
        (lambda a: a.update(labels=np.array([{"a": 1}] * 20, dtype=object)), "allow_pickle=False"),
    ],
)
def test_decompose_refuses_in_one_line_what_cannot_be_decomposed(project, capsys, change, message):
    arrays = predictions()
    change(arrays)
    np.savez("given.npz", **arrays)
    assert study.main(["decompose", "given.npz"]) == 2
    error = one_line_error(capsys)
    assert "given.npz" in error
    assert message in error


def test_decompose_refuses_files_that_are_no_npz(project, capsys):
    Path("text.npz").write_text("hello")
    np.save("one.npy", np.ones(3))
    np.savez("whole.npz", **predictions())
    Path("cut.npz").write_bytes(Path("whole.npz").read_bytes()[:500])
    for name in ("text.npz", "one.npy", "cut.npz", "studies"):
        assert study.main(["decompose", name]) == 2
        assert name in one_line_error(capsys)


# --- run, with the search in other hands ------------------------------------------------------------------------------


@pytest.fixture
def ended(monkeypatch, project):
    """Let `run` end with the summary that is put into it; the report is one line."""
    from lab import search
    from lab.report import page

    given = {}
    fields = dict(
        study="toy", n_planned=4, n_trained=6, n_resumed=0, seconds=1.5, best=None, confirmed=None, engine="inline",
        n_workers=1, device="cpu",
    )  # fmt: skip

    def run(study, name, **options):
        if "error" in given:
            raise given["error"]
        counts = dict.fromkeys(("finished", "diverged", "infeasible", "failed"), 0)
        return search.Summary(**(fields | {"counts": counts | given.pop("counts", {})} | given))

    monkeypatch.setattr(search, "run", run)

    def build(study, *, home):
        return SimpleNamespace(path=home.reports / f"{study}.html", verdict=["one", "two", "three"])

    monkeypatch.setattr(page, "build", build)
    monkeypatch.setattr("lab.tracking.keep_report", lambda study, page, *, home: None)
    return given


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SpecError("no\nsuch   knob"), 2),
        (errors.StudyInUse("held by 7"), 4),
        (errors.StorageError("disk full"), 5),
        (errors.DataError("digits.gz is missing"), 6),
        (errors.SpecChanged("width differs"), 7),
        (OSError(28, "No space left on device", "x.db"), 5),
    ],
)
def test_every_error_is_one_line_and_has_its_exit_code(ended, capsys, error, code):
    ended["error"] = error
    assert study.main(["run", "toy", "--json"]) == code
    assert " ".join(str(error.args[-1]).split()) in one_line_error(capsys)


@pytest.mark.parametrize(("n_bad", "code"), [(0, 0), (8, 0), (9, 3)])
def test_more_than_a_fifth_of_failures_are_exit_code_3_after_the_report(ended, capsys, n_bad, code):
    ended["counts"] = {"finished": 40 - n_bad, "infeasible": n_bad // 2, "failed": n_bad - n_bad // 2}
    assert study.main(["run", "toy", "--json"]) == code
    captured = capsys.readouterr()
    assert json.loads(captured.out)["verdict"] == ["one", "two", "three"]
    assert ("gave no result" in captured.err) is (code == 3)
    assert captured.err.index("report:") < captured.err.find("gave no result") or code == 0


def test_a_run_ends_with_verdict_report_and_the_commands_to_go_on_with(ended, capsys, project):
    ended["counts"] = {"finished": 4}
    assert study.main(["run", "toy", "--set", "epochs=2", "--smoke"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "toy,epochs=2,smoke: 4 finished in 2 s", "", "one", "two", "three", "",
        "report:  reports/toy,epochs=2,smoke.html",
        "ui:      python -m lab.study ui toy,epochs=2,smoke",
        "status:  python -m lab.study status toy,epochs=2,smoke",
    ]  # fmt: skip


def test_a_run_of_a_finished_study_says_so_and_builds_the_report(ended, capsys):
    ended |= {"counts": {"finished": 4}, "n_trained": 0}
    assert study.main(["run", "toy"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "toy is finished (4 finished): nothing to run, the report is built again"
    assert "report:  reports/toy.html" in lines


# --- the whole, in processes of its own -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """Where the studies below are run: MLflow makes its tables once."""
    project = tmp_path_factory.mktemp("project")
    (project / "studies").mkdir()
    (project / "studies" / "toy.py").write_text(TOY)
    return project


def trials_and_runs(project, name):
    from lab import history

    storage = optuna.storages.RDBStorage(Home(project).optuna_uri)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    return trials, history.load(name, home=Home(project))


def test_a_study_runs_from_the_command_line_to_its_report_with_json_alone_on_stdout(databases):
    answer = command("run", "toy", "--workers", "1", "--json", cwd=databases)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["counts"] == {"finished": 6, "diverged": 0, "infeasible": 0, "failed": 0}
    assert Path(result["report"]) == databases / "reports" / "toy.html"
    assert Path(result["report"]).stat().st_size > 10_000
    assert len(result["verdict"]) == 3
    lines = answer.stderr.splitlines()
    assert lines[0] == "toy: 6 trials × 12 replicas on fake (cpu)"
    assert lines[-3:] == [
        "report:  reports/toy.html", "ui:      python -m lab.study ui toy", "status:  python -m lab.study status toy",
    ]  # fmt: skip
    assert "\x1b" not in answer.stderr
    trials, history = trials_and_runs(databases, "toy")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert history.trials.phase.value_counts().to_dict() == {"explore": 6, "confirm": 1, "learning_curve": 1}


def start(databases, *words, **environment):
    pids = databases / f"pids-{time.monotonic_ns()}"
    pids.mkdir()
    environment |= {"PYTHONPATH": str(ROOT), "LAB_FAKE_PIDS": str(pids)}
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.study", "run", *words],
        cwd=databases, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    return process, pids


def wait_for(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)


def all_gone(pids, seconds):
    end = time.monotonic() + seconds
    while any(alive(int(path.name)) for path in pids.iterdir()) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(int(path.name)) for path in pids.iterdir())


def test_a_killed_run_leaves_no_process_and_the_next_one_ends_with_every_trial_once(databases):
    (databases / "studies" / "killed.py").write_text(TOY)
    first, pids = start(databases, "killed", "--workers", "2", LAB_FAKE_SECONDS="0.4")
    spool = databases / "mlruns" / "spool" / "killed"
    # one trial is settled, a later one lies in the spool
    wait_for(
        lambda: len(list(pids.iterdir())) == 2 and any(spool.glob("explore-000[2-5]")) and not any(spool.glob("*-0000"))
    )
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert all_gone(pids, 2.0)
    trials, _ = trials_and_runs(databases, "killed")
    assert any(trial.state.name == "RUNNING" for trial in trials)
    # a worker is killed as well, this time
    marker = databases / "kill-one"
    marker.touch()
    second, pids = start(databases, "killed", "--workers", "2", LAB_FAKE_KILL=str(marker))
    _, error = second.communicate(timeout=90)
    assert second.returncode == 0, error
    assert "taken up again" in error
    assert not marker.exists()
    assert all_gone(pids, 1.0)
    trials, history = trials_and_runs(databases, "killed")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert history.trials.phase.value_counts().to_dict() == {"explore": 6, "confirm": 1, "learning_curve": 1}
    assert list(spool.iterdir()) == []
    # and all of it is what an undisturbed run in another process measured
    _, undisturbed = trials_and_runs(databases, "toy")
    columns = ["key", "val_risk", "bias_sq", "variance", "learning_rate", "width", "n_train"]
    for one, other in zip(*(h.trials.sort_values("key")[columns].values for h in (history, undisturbed)), strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize(
    ("number", "code", "engine"), [(signal.SIGINT, 130, "process"), (signal.SIGTERM, 143, "inline")]
)
def test_an_interrupted_run_stops_at_once_says_how_to_go_on_and_leaves_nothing_half_done(
    databases, number, code, engine
):
    name = f"stopped_{engine}"
    (databases / "studies" / f"{name}.py").write_text(TOY)
    process, pids = start(databases, name, "--engine", engine, "--trials", "5", LAB_FAKE_SECONDS="1.0")
    wait_for(lambda: any(pids.iterdir()))
    time.sleep(0.2)
    started = time.monotonic()
    process.send_signal(number)
    output, error = process.communicate(timeout=20)
    assert time.monotonic() - started < 10
    assert process.returncode == code, error
    assert output == ""
    assert f"To go on: python -m lab.study run {name} --trials 5 --engine {engine}" in error
    assert "Traceback" not in error
    assert all_gone(pids, 1.0)
    spool = databases / "mlruns" / "spool" / name
    assert not spool.exists() or not list(spool.glob(".*"))
    import mlflow

    client = mlflow.MlflowClient(Home(databases).mlflow_uri)
    experiment = client.get_experiment_by_name(name)
    assert all(run.info.status == "FINISHED" for run in client.search_runs([experiment.experiment_id]))
