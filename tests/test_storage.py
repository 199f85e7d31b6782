import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import mlflow_store, spool, storage
from lab.errors import SpecError, StorageError, StudyInUse
from lab.search import database as databases
from lab.storage import Home

HOSTILE = [
    "",
    ".",
    "..",
    "a/b",
    "/etc",
    "a\\b",
    "a b",
    "a\n",
    "a\0",
    "..x",
    "a..b",
    "-rf",
    "ä",
    "x" * 201,
    "a;b",
    "$(x)",
]
FILES = {"config.json": b'{"a": 1}\n', "metrics.json": b'{"final": {"val_risk": 0.25}}\n', "empty.bin": b""}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def write(home, number=3, files=FILES, **changes):
    options = dict(status="finished", started=1.5, finished=2.0) | changes
    return spool.write_outcome(home, "toy", "explore", number, files, **options)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_never_reach_a_path(home, name):
    for path_of in (home.spool_of, home.artifacts_of, home.report_of):
        with pytest.raises(SpecError):
            path_of(name)
    with pytest.raises(SpecError), storage.coordinator_lock(home, name):
        pass
    assert list(home.root.iterdir()) == []


@pytest.mark.parametrize("name", ["capacity_sweep,data=fashion_mnist,family=cnn", "learning_rate=1e-05", "a+b", "0"])
def test_every_path_of_a_study_lies_below_the_project_folder(home, name):
    for path in (home.spool_of(name), home.artifacts_of(name), home.report_of(name), home.outcome_of(name, "a-1")):
        assert path.is_relative_to(home.root.resolve())


def test_a_symbolic_link_out_of_the_spool_is_not_followed(home, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    home.spool.mkdir(parents=True)
    (home.spool / "toy").symlink_to(outside)
    with pytest.raises(StorageError, match="symbolic link"):
        write(home)
    assert list(outside.iterdir()) == []


def test_an_outcome_comes_back_as_it_was_written(home):
    directory = write(home, reason=None, attempt=2)
    outcome = spool.read_outcome(directory)
    assert outcome.contents == FILES
    assert (outcome.key, outcome.phase, outcome.number, outcome.status) == ("explore-0003", "explore", 3, "finished")
    assert outcome.manifest["attempt"] == 2
    assert outcome.json("metrics.json")["final"]["val_risk"] == 0.25
    assert spool.pending(home, "toy") == [directory]
    spool.remove_outcome(directory)
    assert list(home.spool_of("toy").iterdir()) == []


def test_any_changed_byte_of_any_file_is_refused_by_the_name_of_the_file(home):
    directory = write(home)
    n_flips = 0
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        for position in range(len(content)):
            for bit in (0x01, 0x10):
                changed = bytearray(content)
                changed[position] ^= bit
                path.write_bytes(changed)
                with pytest.raises(StorageError) as error:
                    spool.read_outcome(directory)
                # a manifest that names another file is told by that other file, which is not there
                assert path.name in str(error.value) or path.name == "manifest.json", (path, position)
                n_flips += 1
        path.write_bytes(content)
    assert n_flips > 1000
    spool.read_outcome(directory)


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_truncated_missing_or_extra_file_is_refused_by_its_name(home, name):
    directory = write(home)
    content = (directory / name).read_bytes()
    if content:
        (directory / name).write_bytes(content[:-2])
        with pytest.raises(StorageError, match=name):
            spool.read_outcome(directory)
    (directory / name).unlink()
    with pytest.raises(StorageError, match=name):
        spool.read_outcome(directory)
    (directory / name).write_bytes(content)
    (directory / "extra.txt").write_text("x")
    with pytest.raises(StorageError, match=r"extra\.txt"):
        spool.read_outcome(directory)


def test_a_manifest_cannot_point_out_of_its_outcome(home, tmp_path):
    directory = write(home)
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"]["../../../secret"] = manifest["files"]["empty.bin"]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SpecError, match="not a usable name"):
        spool.read_outcome(directory)


def test_an_outcome_that_was_moved_to_another_trial_is_refused(home):
    directory = write(home)
    other = directory.with_name("explore-0004")
    directory.rename(other)
    with pytest.raises(StorageError, match="belongs to 'explore-0003'"):
        spool.read_outcome(other)


@pytest.mark.parametrize("late", [1, 4])
def test_of_two_outcomes_of_a_trial_the_one_of_the_later_attempt_counts_whichever_came_first(home, late):
    write(home, attempt=4)
    write(home, files={"config.json": b"late"}, attempt=late)  # of the same attempt, the first
    assert spool.read_outcome(home.outcome_of("toy", "explore-0003")).contents == FILES
    write(home, files={"config.json": b"later"}, attempt=5)
    assert spool.read_outcome(home.outcome_of("toy", "explore-0003")).contents == {"config.json": b"later"}
    assert spool.attempt_of(home.outcome_of("toy", "explore-0003")) == 5
    assert spool.attempt_of(home.outcome_of("toy", "explore-0004")) == 0
    assert [p.name for p in home.spool_of("toy").iterdir()] == ["explore-0003"]


@pytest.mark.parametrize("k", range(1, 30))
def test_a_disk_that_fails_at_any_step_leaves_a_whole_outcome_or_none(home, monkeypatch, k):
    calls = [0]

    def failing(real):
        def call(*args, **kwargs):
            calls[0] += 1
            if calls[0] == k:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(os, "rename", failing(os.rename))
        patch.setattr(Path, "mkdir", failing(Path.mkdir))
        try:
            write(home)
        except StorageError as error:
            assert "No space left on device" in str(error)
            assert "\n" not in str(error)
        else:
            assert calls[0] < k or home.outcome_of("toy", "explore-0003").is_dir()
    names = [p.name for p in home.spool_of("toy").iterdir()] if home.spool_of("toy").is_dir() else []
    assert names in ([], ["explore-0003"])
    if names:
        assert spool.read_outcome(home.outcome_of("toy", names[0])).contents == FILES
    assert write(home).is_dir()  # and the disk has room again


def test_what_a_dead_writer_left_is_removed_and_nothing_else(home):
    directory = write(home)
    dead = home.spool_of("toy") / ".explore-0009.0123456789ab.tmp"
    dead.mkdir()
    (dead / "half").write_text("x")
    assert spool.pending(home, "toy") == [directory]
    assert spool.clean_temporaries(home, "toy") == 1
    assert [p.name for p in home.spool_of("toy").iterdir()] == ["explore-0003"]


def test_a_second_coordinator_is_refused_and_told_who_holds_the_study(home):
    code = (
        "import sys; from pathlib import Path; from lab import storage\n"
        "with storage.coordinator_lock(storage.Home(Path(sys.argv[1])), 'toy'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StudyInUse, match=rf"process {other.pid}\b") as error, storage.coordinator_lock(home, "toy"):
            pass
        assert error.value.exit_code == 4
        assert storage.in_use(home, "toy")
        with storage.coordinator_lock(home, "another"):
            pass
        other.kill()
    # the system frees what a killed holder held
    assert not storage.in_use(home, "toy")
    with storage.coordinator_lock(home, "toy"):
        assert storage.holder(home, "toy") == os.getpid()
    assert storage.holder(home, "toy") is None


MOUNTS = """\
/dev/vda1 / ext4 rw,relatime 0 0
server:/export /net nfs4 rw 0 0
/dev/vdb1 /net/local xfs rw 0 0
host:/share /mnt/my\\040share fuse.sshfs rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/mlruns/optuna.db", None),
        ("/net/project/mlruns/optuna.db", "nfs4"),
        ("/network/optuna.db", None),
        ("/net/local/optuna.db", None),
        ("/mnt/my share/optuna.db", "fuse.sshfs"),
        ("/dev/shm/optuna.db", None),
    ],
)
def test_a_network_file_system_is_recognised_by_the_nearest_mount(path, kind):
    assert storage.network_file_system(Path(path), MOUNTS) == kind


def test_sqlite_on_a_network_file_system_is_refused_before_a_file_is_made(home, monkeypatch):
    monkeypatch.setattr(storage, "network_file_system", lambda path, mounts: "nfs4")
    with pytest.raises(StorageError, match=r"network file system \(nfs4\).*--storage postgresql"):
        databases.open_database(home)
    with pytest.raises(StorageError, match="network file system"):
        mlflow_store.connect(home, create=True)
    assert not list(home.root.rglob("*.db"))


@pytest.mark.parametrize("folder", ["50% what? #1 {x}", "ü and %41"])
def test_the_databases_of_a_folder_with_a_hostile_name_lie_in_it(tmp_path, folder):
    home = Home(tmp_path / folder)
    home.root.mkdir()
    databases.close(databases.open_database(home))
    client = mlflow_store.connect(home, create=True)
    client.create_experiment("x", artifact_location=(home.artifacts / "x").as_uri())
    assert home.optuna_db.is_file() and home.mlflow_db.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@host/db", "postgresql://***@host/db"),
        (
            "no way to postgresql+psycopg://me:p@ss/w@host:5/db now",
            "no way to postgresql+psycopg://***@host:5/db now",
        ),
        ("http://host/path", "http://host/path"),
        (
            "postgresql:///db?user=me&host=/tmp&password=pass now",
            "postgresql:///db?user=***&host=/tmp&password=*** now",
        ),
        (
            "postgresql://host/db?sslpassword=pass&sslmode=require",
            "postgresql://host/db?sslpassword=***&sslmode=require",
        ),
    ],
)
def test_users_and_passwords_of_addresses_are_masked(text, shown):
    assert storage.masked(text) == shown


ADDRESS = "postgresql://me:pass@host/db?sslmode=require"


def test_an_address_of_a_printed_command_is_completed_from_the_environment(monkeypatch):
    monkeypatch.setenv("LAB_STORAGE", ADDRESS)
    assert Home.here(storage.masked(ADDRESS)).search_uri == ADDRESS
    assert Home.here(ADDRESS.replace("pass", "***")).search_uri == ADDRESS.replace("pass", "***")  # a password


@pytest.mark.parametrize("known", ["", "postgresql://me:pass@another/db", storage.masked(ADDRESS)])
def test_an_address_of_a_printed_command_that_cannot_be_completed_is_one_line_that_says_what_to_do(monkeypatch, known):
    monkeypatch.setenv("LAB_STORAGE", known)
    with pytest.raises(
        SpecError, match=r"\*\*\* stands for a user or password, .*: fill it in, or set LAB_STORAGE"
    ) as caught:
        Home.here(storage.masked(ADDRESS))
    assert "pass@" not in str(caught.value) and "\n" not in str(caught.value)


HOLDER = """
import sys
from pathlib import Path
from lab.storage import Home, made_once
with made_once(Home(Path(sys.argv[1])), "thing") as alive:
    alive()
    print("held", flush=True)
    for _ in sys.stdin:
        alive()
        print("alive", flush=True)
"""


@pytest.fixture
def holder(home):
    """Another process that makes something; it gives a sign for each line that it is sent, until there is no more."""
    words = [sys.executable, "-c", HOLDER, str(home.root)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_is_stopped_while_making_something_keeps_nobody_waiting(home, holder, monkeypatch):
    monkeypatch.setattr(storage, "STILL_SECONDS", 0.5)
    holder.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    with storage.made_once(home, "thing") as alive:
        assert 0.5 < time.monotonic() - started
        alive()
    assert (home.locks / "thing.sign").exists()  # it is the other's to remove


def test_a_lock_that_the_disk_refuses_is_an_error_of_the_storage(home, monkeypatch):
    def refused(self, *_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refused)
    with pytest.raises(StorageError, match="cannot lock thing: No locks available"), storage.made_once(home, "thing"):
        pass


def test_who_goes_on_making_something_is_waited_for(home, holder, monkeypatch):
    monkeypatch.setattr(storage, "STILL_SECONDS", 0.1)
    n_looks = 0

    def clock():
        """Each look at the clock is 0.08 s after the last one, and the other gives a sign in between."""
        nonlocal n_looks
        n_looks += 1
        if n_looks < 20:
            print(file=holder.stdin)
            assert holder.stdout.readline() == "alive\n"
        elif n_looks == 20:
            holder.stdin.close()
            holder.wait()
        return 0.08 * n_looks

    monkeypatch.setattr(storage, "time", SimpleNamespace(monotonic=clock))
    with storage.made_once(home, "thing"):
        assert n_looks >= 20 and holder.returncode == 0  # it had ended, and let go
    assert not (home.locks / "thing.sign").exists()
