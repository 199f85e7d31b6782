"""Commands that reports print: they run as printed, and lead to the study that they speak of."""

import dataclasses
import html
import json
import shlex

import pytest

from lab import study_file
from lab.commands import command, run_command
from lab.errors import SpecError
from lab.flags import asked, build_parser
from lab.replication import Replication
from lab.spec import Float, Int, Study
from tests.command_line import TOY, forked_command

BASE = Study(question="?", data="digits", space={"width": Int(4, 64), "learning_rate": Float(1e-3, 1e-1, log=True)},
             fixed={"epochs": 60}, replication=Replication(n_resamples=8, n_inits=4))  # fmt: skip


def meant(line, base=BASE):
    """Return what the real command line makes of a printed command: the study and the name it is stored under."""
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "lab.study"]
    args = build_parser().parse_args(words[3:])
    settings = study_file.parse_settings(args.set)
    return study_file.change(base, args.name, data=args.data, settings=settings, smoke=args.smoke, n_trials=args.trials)


@pytest.mark.parametrize(
    "stored", ["sweep", "sweep,smoke", "sweep,data=mnist,family=cnn,smoke", "sweep,n_resamples=16,n_test=500,width=8"]
)
def test_the_run_command_of_a_stored_study_leads_to_that_study_again(stored):
    assert meant(command("run", stored))[1] == stored


@pytest.mark.parametrize("verb", ["report", "status", "ui", "verify", "publish"])
def test_other_commands_take_the_stored_name(verb):
    words = shlex.split(command(verb, "sweep,width=8,smoke"))
    args = build_parser().parse_args(words[3:])
    assert (args.names[0] if verb == "report" else args.name) == "sweep,width=8,smoke"


def test_changes_come_before_what_the_name_says_and_other_flags_stay():
    line = run_command("sweep,data=mnist,width=8,smoke", width=16, learning_rate=0.01)
    assert line == "python -m lab.study run sweep --data mnist --smoke --set width=16 --set learning_rate=0.01"
    assert run_command("sweep,smoke", smoke=False, trials=80) == "python -m lab.study run sweep --trials 80"


def test_a_data_set_that_the_name_shortens_is_written_out_and_quoted():
    stored = study_file.change(BASE, "sweep", data="imagefolder:/data/my cats")[1]
    line = command("run", stored, spec={"data": "imagefolder:/data/my cats"})
    assert meant(line) == study_file.change(BASE, "sweep", data="imagefolder:/data/my cats")


def test_studies_that_start_from_other_weights_have_other_names_and_their_commands_the_whole_path():
    settings = [
        dict(weights=path) for path in ("A/weights", "B/weights", "/my runs/A/weights", "A/weights/r.safetensors")
    ]
    found = [study_file.change(BASE, "sweep", settings=setting) for setting in settings]
    assert len({name for _, name in found}) == 4
    for setting, (study, name) in zip(settings, found, strict=True):
        assert name.startswith(f"sweep,weights={setting['weights'].rpartition('/')[2]}-")
        spec = json.loads(json.dumps(study.to_dict()))
        for line in (command("run", name, spec=spec), run_command(name, spec=spec)):
            assert meant(line) == (study, name)
        assert meant(run_command(name, spec=spec, n_inits=16))[0].fixed["weights"] == setting["weights"]
    assert study_file.change(BASE, "sweep", settings=dict(weights="pretraining.safetensors"))[1] == (
        "sweep,weights=pretraining.safetensors"
    )


def test_set_changes_the_plan_and_the_sizes_and_names_the_study_by_them():
    line = run_command("sweep", n_resamples=16, n_partitions=2, scheme="disjoint", n_test=500)
    changed, name = meant(line)
    assert name == "sweep,n_partitions=2,n_resamples=16,n_test=500"  # disjoint is what the file says
    assert changed.replication == Replication(n_resamples=16, n_partitions=2, n_inits=4)
    assert (changed.n_test, changed.space, changed.fixed) == (500, BASE.space, BASE.fixed)


def test_every_field_of_the_plan_that_has_a_default_of_its_own_can_be_set():
    typed = {f.name: type(f.default) for f in dataclasses.fields(Replication) if f.default is not None}
    assert {name: study_file.PLAN[name] for name in typed} == typed


def test_a_plan_can_be_made_to_grow_on_the_command_line():
    changed, name = meant(run_command("sweep", target_half_width=0.01, max_inits=12))
    assert name == "sweep,max_inits=12,target_half_width=0.01"
    assert changed.replication == dataclasses.replace(BASE.replication, target_half_width=0.01, max_inits=12)


@pytest.mark.parametrize(("setting", "message"), [
    ("max_inits=12", "give target_half_width with it"), ("target_half_width=-1", "target_half_width = -1.0 has to be"),
    ("n_resamples=many", "n_resamples = 'many' has the wrong type: give an integer"),
    ("n_resamples=1", "n_resamples = 1 cannot show"), ("scheme=odd", "scheme 'odd' is unknown"),
    ("n_partitions=3", "8 resamples cannot be shared out evenly over 3"), ("n_test=3", "n_test = 3 has to be"),
    ("stratified=perhaps", "give True or False"),
])  # fmt: skip
def test_an_impossible_plan_on_the_command_line_is_refused_in_one_line(setting, message):
    with pytest.raises(SpecError) as raised:
        study_file.change(BASE, "sweep", settings=study_file.parse_settings([setting]))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_what_is_set_holds_in_the_small_version_too():
    small, name = meant(run_command("sweep,smoke", epochs=16, n_inits=5, n_test=700))
    assert name == "sweep,epochs=16,n_inits=5,n_test=700,smoke"
    assert (small.fixed["epochs"], small.replication.n_inits, small.n_test) == (16, 5, 700)
    assert small.replication.n_resamples == BASE.smoke().replication.n_resamples


ASKED = ["--trials", "4", "--data-dir", "/my data", "--storage", "postgresql://host/lab"]


@pytest.mark.parametrize("words", [
    ["sweep"], ["sweep", "--trials", "4"], ["../my files/sweep.py", "--data-dir", "/my data"], ["sweep", *ASKED],
])  # fmt: skip
def test_what_the_stored_name_does_not_say_stands_in_the_command(words):
    told = asked(build_parser().parse_args(["run", *words]))
    line = run_command("sweep,data=mnist,smoke", spec={"data": "mnist"}, asked=told)
    again = build_parser().parse_args(shlex.split(line)[3:])
    first = build_parser().parse_args(["run", *words, "--data", "mnist", "--smoke"])
    assert again == first


def test_a_command_that_changes_the_number_of_trials_or_runs_the_study_in_full_drops_what_was_asked_of_them():
    told = asked(build_parser().parse_args(["run", "sweep", "--trials", "4", "--data-dir", "d"]))
    base = "python -m lab.study run sweep"
    assert run_command("sweep", asked=told, trials=80) == f"{base} --trials 80 --data-dir d"
    assert run_command("sweep,smoke", asked=told, smoke=False) == f"{base} --data-dir d"


def test_commands_on_a_study_in_a_database_of_several_people_name_it_without_its_password():
    told = asked(build_parser().parse_args(["run", "sweep", "--storage", "postgresql://me:secret@host/lab"]))
    for verb in ("run", "status", "ui", "verify", "publish"):
        words = shlex.split(command(verb, "sweep", asked=told))
        assert build_parser().parse_args(words[3:]).storage == "postgresql://***@host/lab"
    assert command("report", "sweep", asked=told) == "python -m lab.study report sweep"  # it reads MLflow alone


def test_the_commands_of_a_report_and_of_status_lead_to_a_study_file_anywhere_and_its_data(project):
    files = project / "my files"
    files.mkdir()
    (files / "mine.py").write_text(TOY)
    words = ["run", str(files / "mine.py"), "--data-dir", str(files), "--trials", "2", "--engine", "inline"]
    answer = forked_command(*words, cwd=project)
    assert answer.returncode == 0, answer.stderr
    line = shlex.join(["python", "-m", "lab.study", *words[:2], "--trials", "2", "--data-dir", str(files)])
    page = html.unescape((project / "reports" / "mine.html").read_text())
    assert f"<code>{line}</code>" in page
    printed = [x for x in page.split("<code>") if x.startswith("python -m lab.study run")]
    assert all(str(files / "mine.py") in x and f"--data-dir '{files}'" in x for x in printed)
    again = forked_command(*shlex.split(line)[3:], cwd=project)
    assert "mine is finished (2 finished)" in again.stderr
    more = forked_command(*words[:4], "--trials", "4", "--engine", "inline", "--time-limit", "0.0001", cwd=project)
    assert "2 finished, 2 left by the time limit" in more.stderr
    status = forked_command("status", "mine", cwd=project)
    assert f"to go on: {line.replace('--trials 2', '--trials 4')}" in status.stderr


def test_a_stored_name_in_the_place_of_a_study_is_answered_with_the_flags_that_lead_to_it(project):
    with pytest.raises(SpecError, match=r"the flags in it: run toy --smoke --set width=8$"):
        study_file.find("toy,width=8,smoke")
