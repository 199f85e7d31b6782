"""A small study that faults are injected into: run in a fork of this process, so that `kill` is a real SIGKILL.

A fork has everything imported that a run needs (MLflow alone takes seconds), and dies without taking the tests along.
"""

import contextlib
import dataclasses
import functools
import io
import os
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from alembic.util.pyfiles import load_python_file

from lab import failpoints, interrupts, search
from lab import study as command
from lab.errors import LabError
from lab.progress import Progress
from lab.spec import Float, Int, Replication, Study
from lab.storage import Home
from tests import fake_training, invariants
from tests.waiting import until

NAME = "toy"
FIRED = 99  # exit code of a run that an injected error ended
CODES = {"kill": (-9,), "raise": (FIRED,), "enospc": (5, FIRED)}  # action of a failpoint → exit codes of the run
INJECTED: Counter[str] = Counter()  # "faked" or "real" training → faults that were injected in this session
STUDY = Study(
    question="Does it survive?", data="fake",
    space={"learning_rate": Float(1e-4, 1.0, log=True), "width": Int(4, 64, log=True)},
    fixed=dict(epochs=3, n_train=40), replication=Replication("disjoint", 2, 2), n_trials=2, learning_curve=(),
)  # fmt: skip


def _loaded(folder: str, name: str) -> object:
    # the file beside them, env.py, does the migrating: it has to run every time
    return _migration(folder, name) if Path(folder).name == "versions" else load_python_file(folder, name)


@functools.cache
def _migration(folder: str, name: str) -> object:
    return load_python_file(folder, name)


@contextlib.contextmanager
def fake_trainer() -> Iterator[None]:
    """Train with tests.fake_training, and read each of MLflow's and Optuna's migration scripts once: they are 80.

    That takes a third of such a run's processor time, and a fork has what its parent has read.
    """
    import alembic.util

    from lab import training
    from lab.data import datasets

    before = training.fit, training.count_parameters, alembic.util.load_python_file
    alembic.util.load_python_file = _loaded
    training.fit, training.count_parameters = fake_training.fit, fake_training.count_parameters
    datasets.DATASETS["fake"] = fake_training.dataset
    try:
        yield
    finally:
        training.fit, training.count_parameters, alembic.util.load_python_file = before
        del datasets.DATASETS["fake"]


@contextlib.contextmanager
def memory() -> Iterator[Path]:
    """Yield a folder in memory, where there is one: databases sync often, and a busy disk takes its time."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


def run(home: Home, study: Study = STUDY, **options) -> search.Summary:
    """Run the study, or what is left of it, in this process, and say nothing."""
    options = {"engine": "inline", "device": "cpu"} | options
    return search.run(study, NAME, home=home, progress=Progress(stream=io.StringIO()), **options)


def tried(what: Callable[[], object]) -> int:
    """Do something in this process; return its exit code: a LabError's own, FIRED for what was injected."""
    try:
        what()
    except LabError as error:
        return error.exit_code
    except (failpoints.Injected, OSError):
        return FIRED
    return 0


def begin(what: Callable[[], object]) -> int:
    """Begin to do something in a fork, which takes signals as the command line does; return its process number."""
    here, there = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy's threads rest: this process only waits
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with interrupts.heeded():
                os.write(there, b"!")
                code = tried(what)
                os._exit(code)  # in here, where a signal means what it does in a command
        except interrupts.Terminated:
            code = command.TERMINATED
        except KeyboardInterrupt:
            code = command.INTERRUPTED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.read(here, 1)
    os.close(here)
    os.close(there)
    return pid


def end(pid: int) -> int:
    """Wait for a fork; return its exit code or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def forked(what: Callable[[], object]) -> int:
    """Do something in a fork; return its exit code or minus the signal that ended it."""
    return end(begin(what))


def armed(home: Home, failpoint: str, study: Study = STUDY) -> None:
    """Run the study with a failpoint armed."""
    point = failpoints.arm(failpoint)
    run(home, study)
    assert point is not None
    if point.fired:
        raise failpoints.Injected("and the run went on to its end all the same")


def injected(home: Home, failpoint: str, study: Study = STUDY) -> int:
    """Run the study in a fork with a failpoint armed; 0 says that it came to its end and nothing fired."""
    return counted(forked(functools.partial(armed, home, failpoint, study)), study)


def signalled(home: Home, number: signal.Signals, after: float, study: Study = STUDY) -> int:
    """Run the study in a fork that is sent a signal after so many seconds; 0 says that it had ended before.

    It has to end within ten seconds of the signal.
    """
    pid = begin(functools.partial(run, home, study))
    time.sleep(after)
    os.kill(pid, number)
    until(lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None, 10.0)
    return counted(end(pid), study)


def counted(code: int, study: Study = STUDY) -> int:
    """Count a fault if the exit code says that there was one, and return the code."""
    INJECTED["faked" if study.data == "fake" else "real"] += code != 0
    return code


REAL = dataclasses.replace(
    STUDY, data="digits", n_test=60, n_validation=40, n_evaluations=3,
    space={"learning_rate": Float(1e-3, 0.1, log=True), "dropout": Float(0.0, 0.5)},
    fixed=dict(epochs=6, n_train=60, width=12, norm="batch", patience=2),
)  # fmt: skip


def copy(home: Home, to: Path) -> Home:
    """Return a copy of a project folder."""
    shutil.copytree(home.root, to)
    return Home(to)


def again_and_again(home: Home, place: str, action: str, study: Study = STUDY, *, first: int = 1, step: int = 1) -> int:
    """Run a study until a run is not disturbed; the n-th falls at a later passage of the place than the one before.

    The invariants are checked after each. Returns the number of injections.
    """
    n, k = 0, first
    while (code := injected(home, f"{place}:{k}={action}", study)) != 0:
        assert code in CODES[action], f"{place}:{k}={action} ended with exit code {code}"
        invariants.check(home, NAME, study.n_trials)
        n, k = n + 1, k + step
    invariants.check_finished(home, NAME, study.n_trials)
    return n


@functools.cache
def small(n_trials: int) -> Study:
    """Return the study with another number of trials."""
    return dataclasses.replace(STUDY, n_trials=n_trials)
