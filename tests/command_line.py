"""The command line in a process of its own or in a fork of this one, on a toy study that trains nothing."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna

from lab import study
from lab.storage import Home
from tests import faults
from tests.test_workers import alive
from tests.waiting import LONG, until

ROOT = Path(__file__).resolve().parent.parent
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


def command(*words, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "lab.study", *words],
        cwd=cwd, capture_output=True, text=True, timeout=2 * LONG,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip


def forked_command(*words, cwd, **environment):
    """Do the same in a fork, which does not import everything anew: that takes longer than most commands."""
    import mlflow  # noqa: F401
    import torch  # noqa: F401

    import lab.report.page
    import lab.search
    import lab.tracking  # noqa: F401

    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:

        def what():
            os.chdir(cwd)
            os.environ.update(environment)
            for here, there in ((output, 1), (error, 2)):
                os.dup2(here.fileno(), there)
            sys.stdout, sys.stderr = (open(there, "w", closefd=False) for there in (1, 2))
            code = study.main(list(words))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

        code = faults.forked(what)
        said = []
        for file in (output, error):
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(words, code, *said)


def one_line_error(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def trials_and_runs(project, name):
    from lab import history

    storage = optuna.storages.RDBStorage(Home(project).optuna_uri)
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    return trials, history.load(name, home=Home(project))


def start(databases, *words, **environment):
    pids = databases / f"pids-{time.monotonic_ns()}"
    pids.mkdir()
    environment |= {"PYTHONPATH": str(ROOT), "LAB_FAKE_PIDS": str(pids)}
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.study", "run", *words],
        cwd=databases, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    return process, pids


def wait_until_all_are_gone(pids):
    """Wait until none of the processes is alive that have left their numbers in a folder."""
    until(lambda: not any(alive(int(path.name)) for path in pids.iterdir()), 60.0)
