"""What the data sets with published files share: where files are looked for, and how they are downloaded.

Downloads go through torchvision (its checks, its progress bar) into ./data, where torchvision itself would put them.
A download that breaks off leaves nothing behind: half a data set would be an error at the next run.
"""

import http.client
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lab.errors import DataError

DOWNLOADS = Path("data")
TIMEOUT_SECONDS = 10.0  # for a server to answer, each time


class Published(NamedTuple):
    """A data set with an official training and test part: images (N, channels, h, w) uint8, labels (N,) int64."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    source: str


def check_directory(name: str, data_dir: Path | None) -> None:
    """Raise a DataError if the user's directory for data does not exist."""
    if data_dir is not None and not data_dir.is_dir():
        raise DataError(f"{name}: --data-dir {data_dir} is not a directory: give one that holds the files")


def find_folder(name: str, data_dir: Path | None, subfolder: str, files: Sequence[str], how: str) -> Path | None:
    """Return the folder with all the files, below `data_dir` or ./data or in one of them; None if there is none.

    Raises:
        DataError: `data_dir` is not a directory, or only some of the files are there.
    """
    check_directory(name, data_dir)
    for base in [*([data_dir] if data_dir is not None else []), DOWNLOADS]:
        for folder in dict.fromkeys((base / subfolder, base)):
            present = [(folder / file).is_file() for file in files]
            if all(present):
                return folder
            if any(present):
                missing = files[present.index(False)]
                raise DataError(f"{name}: {folder / missing} is missing, though other files of it are there: {how}")
    return None


def read_bytes(name: str, path: Path, expected: int, how: str) -> bytes:
    """Return the content of a file that has to have `expected` bytes.

    Raises:
        DataError: It cannot be read or has another size.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size == expected else b""
    except OSError as error:
        raise DataError(f"{name}: {path} cannot be read ({error.strerror}): {how}") from error
    if len(content) != expected:
        raise DataError(f"{name}: {path} has {size} bytes, expected {expected}: it is damaged or another file: {how}")
    return content


def download(
    name: str,
    resources: Sequence[tuple[str, str]],
    target: Path,
    *,
    wanted: Sequence[str],
    missing: str,
    how: str,
    unpack: str | None = None,
) -> None:
    """Put files, given as (address, md5), into the folder `target`.

    Args:
        name: The data set.
        resources: Address and md5 sum of each file.
        target: Where the files go.
        wanted: The files to keep, by name.
        missing: What the error says is not here, e.g. "a.bin is not in ./data".
        how: What the error says to do about it.
        unpack: For an archive: the folder inside it where the files are.

    Raises:
        DataError: There is no network or the server fails; without a network that takes seconds.
    """
    with _patience(), _explained(f"{name}: {missing}, and the download failed", how):
        from torchvision.datasets.utils import download_url, extract_archive

        with tempfile.TemporaryDirectory() as partial:
            for address, md5 in resources:
                download_url(address, partial, filename=Path(address).name, md5=md5)
            found = Path(partial)
            if unpack is not None:
                for address, _ in resources:
                    extract_archive(str(Path(partial) / Path(address).name), str(Path(partial) / "unpacked"))
                found = Path(partial) / "unpacked" / unpack
            absent = [file for file in wanted if not (found / file).is_file()]
            if absent:
                raise FileNotFoundError(f"{absent[0]} is not in what was downloaded")
            target.mkdir(parents=True, exist_ok=True)
            for file in wanted:
                shutil.move(found / file, target / file)


@contextmanager
def _patience() -> Iterator[None]:
    """Give up on a silent server: torchvision sets no timeout, and would wait for minutes."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)


@contextmanager
def _explained(what: str, how: str) -> Iterator[None]:
    try:
        yield
    except (ImportError, OSError, RuntimeError, http.client.HTTPException) as error:
        raise DataError(f"{what} ({error}): {how}") from error
