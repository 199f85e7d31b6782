"""The whole lab in processes of its own, from the command line to the report; killed and interrupted too."""

import json
import signal
from pathlib import Path

import pytest

from lab.storage import Home
from tests import invariants
from tests.command_line import TOY, command, forked_command, start, trials_and_runs, wait_until_all_are_gone
from tests.waiting import until


def test_a_study_runs_from_the_command_line_to_its_report_with_json_alone_on_stdout(databases):
    answer = command("run", "toy", "--workers", "1", "--json", cwd=databases)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(answer.stdout)
    assert result["counts"] == {"finished": 6, "diverged": 0, "infeasible": 0, "failed": 0}
    assert Path(result["report"]) == databases / "reports" / "toy.html"
    assert Path(result["report"]).stat().st_size > 10_000
    assert len(result["verdict"]) == 3
    lines = answer.stderr.splitlines()
    assert lines[0] == "toy: 6 trials × 12 replicas on fake (cpu), then 2 more of the best"
    assert lines[-3:] == [
        "report:  reports/toy.html", "ui:      python -m lab.study ui toy", "status:  python -m lab.study status toy",
    ]  # fmt: skip
    assert "\x1b" not in answer.stderr
    trials, history = trials_and_runs(databases, "toy")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert history.trials.phase.value_counts().to_dict() == {"explore": 6, "confirm": 1, "learning_curve": 1}


def test_a_killed_run_leaves_no_process_and_the_next_one_ends_with_every_trial_once(databases):
    (databases / "studies" / "killed.py").write_text(TOY)
    home, gate = Home(databases), databases / "gate-of-killed"
    first, pids = start(databases, "killed", "--workers", "2", LAB_FAKE_GATE=str(gate), LAB_FAKE_FREE="1")
    spool = home.spool_of("killed")

    def numbers(state):
        return [number for number, trial in invariants.trials(home, "killed").items() if trial[0] == state]

    # a trial of each worker is settled, and its next one is under way; then one of those lies in the spool, unseen
    until(lambda: len(list(pids.iterdir())) == 2)
    until(lambda: len(numbers("COMPLETE")) == 2)
    first.send_signal(signal.SIGSTOP)
    gate.touch()
    until(lambda: any((spool / f"explore-{number:04d}").exists() for number in numbers("RUNNING")))
    first.kill()
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    wait_until_all_are_gone(pids)
    trials, _ = trials_and_runs(databases, "killed")
    assert any(trial.state.name == "RUNNING" for trial in trials)
    # a worker is killed as well, this time
    marker = databases / "kill-one"
    marker.touch()
    pids = databases / "pids-of-the-second"
    pids.mkdir()
    second = forked_command(
        "run", "killed", "--workers", "2", cwd=databases, LAB_FAKE_KILL=str(marker), LAB_FAKE_PIDS=str(pids)
    )
    assert second.returncode == 0, second.stderr
    assert "taken up again" in second.stderr
    assert not marker.exists()
    wait_until_all_are_gone(pids)
    trials, history = trials_and_runs(databases, "killed")
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 6
    assert history.trials.phase.value_counts().to_dict() == {"explore": 6, "confirm": 1, "learning_curve": 1}
    assert list(spool.iterdir()) == []
    # and all of it is what an undisturbed run in another process measured
    _, undisturbed = trials_and_runs(databases, "toy")
    columns = ["key", "val_risk", "bias_sq", "variance", "learning_rate", "width", "n_train"]
    for one, other in zip(*(h.trials.sort_values("key")[columns].values for h in (history, undisturbed)), strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.slow
def test_a_trial_that_always_kills_its_worker_is_set_aside_and_too_many_of_them_are_exit_code_3(databases):
    space = TOY[TOY.index("    space=") : TOY.index("    fixed=")]
    killer = TOY.replace(space, "    space=dict(batch_size=Choice(16, 19)), sampler='grid',\n")
    (databases / "studies" / "killer.py").write_text(killer.replace("learning_curve=(1.0, 0.5)", "learning_curve=()"))
    pids = databases / "pids-of-killer"
    pids.mkdir()
    words = ["run", "killer", "--trials", "2", "--engine", "process", "--workers", "1"]
    answer = forked_command(*words, cwd=databases, LAB_FAKE_PIDS=str(pids))
    assert answer.returncode == 3, answer.stderr
    assert "error: 50% of the trials of killer gave no result (1 finished, 1 failed)" in answer.stderr
    assert len(list(pids.iterdir())) in (3, 4)  # three that died, the last of them after the other trial or before it
    trials, history = trials_and_runs(databases, "killer")
    assert sorted(trial.state.name for trial in trials) == ["COMPLETE", "FAIL"]
    [failed] = [trial for trial in trials if trial.state.name == "FAIL"]
    assert failed.params["batch_size"] == 19
    assert failed.user_attrs["reason"] == "its worker process was lost 3 times, last by signal 9"
    assert history.trials.phase.value_counts().to_dict() == {"explore": 2, "confirm": 1}
    wait_until_all_are_gone(pids)


@pytest.mark.parametrize(
    ("number", "code", "engine"), [(signal.SIGINT, 130, "process"), (signal.SIGTERM, 143, "inline")]
)
def test_an_interrupted_run_stops_at_once_says_how_to_go_on_and_leaves_nothing_half_done(
    databases, number, code, engine
):
    name = f"stopped_{engine}"
    (databases / "studies" / f"{name}.py").write_text(TOY)
    held = {"LAB_FAKE_GATE": str(databases / "a-gate-that-nobody-opens")}
    process, pids = start(databases, name, "--engine", engine, "--trials", "5", **held)
    until(lambda: any(pids.iterdir()))
    process.send_signal(number)
    until(lambda: process.poll() is not None, 10.0)
    output, error = process.communicate()
    assert process.returncode == code, error
    assert output == ""
    assert f"To go on: python -m lab.study run {name} --trials 5 --engine {engine}" in error
    assert "Traceback" not in error
    wait_until_all_are_gone(pids)
    spool = databases / "mlruns" / "spool" / name
    assert not spool.exists() or not list(spool.glob(".*"))
    import mlflow

    client = mlflow.MlflowClient(Home(databases).mlflow_uri)
    experiment = client.get_experiment_by_name(name)
    assert all(run.info.status == "FINISHED" for run in client.search_runs([experiment.experiment_id]))
