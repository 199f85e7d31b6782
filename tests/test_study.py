import json
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lab import errors, flags, study, study_file
from lab.errors import SpecError
from lab.spec import Choice, Int, Study
from tests.command_line import LIGHT, one_line_error

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


def test_the_command_line_is_small_and_each_command_does_something():
    assert set(flags.build_parser()._subparsers._group_actions[0].choices) == set(study.COMMANDS)
    assert set(study.COMMANDS) == {
        "list", "run", "status", "report", "ui", "publish", "verify", "decompose",
        "export-weights",
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
        (["run", "toy", "--weight-decay", "9"], "weight_decay is a knob, give --set weight_decay=VALUE"),
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
        (["run", "studies/toy"], "there is no study file studies/toy: did you mean studies/toy.py?"),
        (["run", "toy.py"], "there is no study file toy.py: did you mean studies/toy.py?"),
        (["run", "toy", "--set", "lr=3"], "unknown knob 'lr': did you mean learning_rate?"),
        (["run", "toy", "--set", "wd=3"], "unknown knob 'wd': did you mean weight_decay?"),
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
        (LIGHT.replace("n_trials=", "n_trails="), "toy.py:5: Study has no field 'n_trails': did you mean n_trials?"),
        (LIGHT.replace("space=", "hyperparameters="), "toy.py:5: Study has no field 'hyperparameters'"),
        (
            LIGHT.replace('"disjoint", 3, 4', "shceme='disjoint'"),
            "Replication has no field 'shceme': did you mean scheme?",
        ),
        ("def f():\n    return {}['a']\n\nf()\n", "toy.py:2: KeyError: 'a'"),
    ],
)
def test_an_error_in_a_study_file_is_one_line_that_names_file_and_line(project, capsys, text, message):
    (project / "studies" / "toy.py").write_text(text)
    assert study.main(["run", "toy"]) == 2
    assert message in one_line_error(capsys)
    assert not (project / "mlruns").exists()


def test_several_draws_of_a_label_noise_that_there_is_none_of_are_refused(project, capsys):
    (project / "studies" / "toy.py").write_text(LIGHT)
    assert study.main(["run", "toy", "--data", "digits", "--set", "n_noise_draws=2"]) == 2
    assert "n_noise_draws = 2, but digits has no posterior to draw labels from" in one_line_error(capsys)
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


def test_ctrl_c_while_the_report_is_built_names_the_command_that_builds_it(ended, capsys, monkeypatch):
    def build(study, *, home):
        raise KeyboardInterrupt

    monkeypatch.setattr("lab.report.page.build", build)
    ended["counts"] = {"finished": 4}
    assert study.main(["run", "toy"]) == 130
    assert capsys.readouterr().err.endswith("To build the report: python -m lab.study report toy\n")


def test_the_commands_after_a_run_say_what_the_stars_in_an_address_stand_for(ended, capsys, monkeypatch):
    monkeypatch.delenv("LAB_STORAGE", raising=False)
    ended["counts"], storage = {"finished": 4}, ["--storage", "postgresql://me:secret@host/lab"]
    assert study.main(["run", "toy", *storage]) == 0
    ui, status, note = capsys.readouterr().err.splitlines()[-3:]
    assert "'postgresql://***@host/lab'" in ui and "'postgresql://***@host/lab'" in status
    assert note.startswith("*** stands for a user or password")
    words = shlex.split(status)[4:]  # without "status: python -m lab.study"
    assert study.main(words) == 2
    assert "LAB_STORAGE" in one_line_error(capsys)
    ended["error"] = KeyboardInterrupt()
    assert study.main(["run", "toy", *storage]) == 130
    captured = capsys.readouterr().err
    assert "To go on: python" in captured and captured.splitlines()[-1] == note and "secret" not in captured


def test_a_run_of_a_finished_study_says_so_and_builds_the_report(ended, capsys):
    ended |= {"counts": {"finished": 4}, "n_trained": 0}
    assert study.main(["run", "toy"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "toy is finished (4 finished): nothing to run, the report is built again"
    assert "report:  reports/toy.html" in lines


@pytest.mark.parametrize(
    ("n_planned", "text"),
    [(9, "toy: 6 finished of 9"), (6, "toy: 6 finished of 6"), (5, "toy: 6 finished, 5 planned by now")],
)
def test_status_counts_no_more_trials_done_than_were_planned(n_planned, text):
    row = {"study": "toy", "counts": {"finished": 6, "failed": 0}, "n_planned": n_planned}
    nothing = {"targets": None, "n_unfinished": 0, "in_use": False, "best": None, "again": "run"}
    assert study._status_text(row | nothing) == text


@pytest.mark.parametrize(("n", "n_lines"), [(0, 1), (20, 21), (300, 22)])
def test_status_shows_no_more_reasons_than_fit_on_a_screen(monkeypatch, capsys, n, n_lines):
    from lab import search

    row = {"study": "toy", "counts": {"pruned": n}, "n_planned": n, "targets": None, "n_unfinished": 0, "in_use": False,
           "best": None, "again": "run", "training_sets": None, "runs": [],
           "reasons": [f"trial {k} {'failed: memory' if k == 50 else 'pruned: worse'}" for k in range(n)]}  # fmt: skip
    monkeypatch.setattr(search, "status", lambda home, name: [row])
    assert study.main(["status", "toy"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == n_lines
    if n > 20:
        assert (lines[1], lines[-1]) == ("  trial 50 failed: memory", f"  and {n - 20} more: --json has them all")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "n_tset=30"], "unknown knob 'n_tset': did you mean n_test"),
        (["--set", "n_resample=9"], "did you mean n_resamples"),
        (["--set", "n_trials=5"], "--set n_trials: give --trials N"),
        (["--set", "sampler=tpe"], "--set sampler: change it in the study file"),
        (["--set", "n_test=100000"], "ask for fewer, e.g. n_test=359 in the study file or by --set"),
        (["--set", "n_train=1000"], "or choose the scheme subsample, in the study file or by --set scheme=subsample"),
    ],
)
def test_what_cannot_be_set_is_answered_with_what_can(project, capsys, words, message):
    (project / "studies" / "toy.py").write_text(LIGHT.replace('"fake"', '"digits"'))
    assert study.main(["run", "toy", *words]) == 2
    assert message in one_line_error(capsys)


@pytest.mark.parametrize("minutes", ["-1", "0", "nan", "inf", "soon"])
def test_a_time_limit_is_a_number_of_minutes(project, capsys, minutes):
    with pytest.raises(SystemExit):
        study.main(["run", "toy", "--time-limit", minutes])
    assert "give a number of minutes above 0" in one_line_error(capsys)
