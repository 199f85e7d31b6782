"""MNIST, Fashion-MNIST, Kuzushiji-MNIST and EMNIST from idx files, found here or downloaded, and checked.

An idx file is: two zero bytes, the type (8 = unsigned byte), the number of dimensions, one big-endian 32-bit size a
dimension, the values (LeCun, Cortes & Burges 1998). torchvision 0.29 loads wrong or truncated ones without complaint,
so everything is checked here: magic number, sizes, shapes, labels, and, where it is known, a checksum.
"""

import gzip
import hashlib
import math
import warnings
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lab.data import published
from lab.data.published import DOWNLOADS, Published, check_directory
from lab.errors import DataError

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SIDE = 28
MAX_BYTES = 2**31  # a header that claims more is wrong (the largest published file has 47 MB)


class _Origin(NamedTuple):
    title: str
    folder: str  # torchvision's class, which names its folder too
    class_names: tuple[str, ...]
    md5: tuple[str, ...]  # of the published .gz files, as in `resources` of torchvision's class
    sha256: tuple[str, ...]  # of their contents, so that repacked and unpacked files are known too; may be empty
    system: Path | None = None
    package: str = ""
    files: tuple[str, ...] = FILES
    archive: str = ""  # address of a .zip with all files, whose md5 is then the only one
    is_transposed: bool = False  # EMNIST keeps its images by columns


ORIGINS: dict[str, _Origin] = {
    "fashion_mnist": _Origin(
        title="Fashion-MNIST (Xiao et al. 2017)",
        folder="FashionMNIST",
        class_names=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        md5=(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
        # Contents of Debian's package 0.0~git20200523.55506a9-1, which repacks the files without name and time. With
        # the original name and time put back into the gzip headers (31 August 2017) they have the md5 sums above.
        sha256=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        system=Path("/usr/share/datasets/fashion-mnist"),
        package="dataset-fashion-mnist",
    ),
    "mnist": _Origin(
        title="MNIST (LeCun et al. 1998)",
        folder="MNIST",
        class_names=tuple("0123456789"),
        md5=(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
        sha256=(),
    ),
    "kmnist": _Origin(
        title="Kuzushiji-MNIST (Clanuwat et al. 2018)",
        folder="KMNIST",
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        md5=(
            "bdb82020997e1d708af4cf47b453dcf7",
            "e144d726b3acfaa3e44228e80efcd344",
            "5c965bf0a639b31b8f53240b1b52f4d7",
            "7320c461ea6c1c855c0b718fb2a4b134",
        ),
        sha256=(),
    ),
    "emnist": _Origin(
        title="EMNIST, balanced split (Cohen et al. 2017)",
        folder="EMNIST",
        class_names=tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"),
        md5=("58c8d27c78d21e728a6bc7b3cc06412e",),
        sha256=(),
        files=tuple(
            f"emnist-balanced-{part}-{kind}-ubyte"
            for part in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
        archive="https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
        is_transposed=True,
    ),
}  # fmt: skip


def read_idx(path: Path, n_dims: int) -> tuple[np.ndarray, str]:
    """Return the values of an idx file (.gz or not) as uint8, and the sha256 of its unpacked content.

    Raises:
        DataError: It cannot be read or unpacked, has another magic number, or another length than its header says.
    """
    opener: Any = gzip.open if path.suffix == ".gz" else open
    magic = bytes([0, 0, 8, n_dims])
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * n_dims)
            if header[:4] != magic:
                raise DataError(f"{path}: magic number {header[:4].hex()}, expected {magic.hex()}: not this idx file")
            shape = tuple(int(size) for size in np.frombuffer(header[4:].ljust(4 * n_dims, b"\0"), dtype=">u4"))
            expected = math.prod(shape)
            if expected > MAX_BYTES:
                raise DataError(f"{path}: the header claims {expected} bytes, expected at most {MAX_BYTES}: damaged")
            values = file.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read, it is damaged or truncated ({error})") from error
    if len(header) < 4 + 4 * n_dims or len(values) != expected:
        got = f"{len(values)} bytes" if len(values) < expected else "more"
        raise DataError(f"{path}: {got} of values, expected {expected}, as the header says: damaged")
    sha = hashlib.sha256(header)
    sha.update(values)
    return np.frombuffer(values, dtype=np.uint8).reshape(shape), sha.hexdigest()


def _known_as(path: Path, position: int, sha256: str) -> set[str]:
    """Return the data sets whose published file this is, by checksum: of the packed file or of its content."""
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    part = slice(position, position + 1)
    return {name for name, o in ORIGINS.items() if md5 in o.md5[part] or sha256 in o.sha256[part]}


def _present(folder: Path, file: str) -> Path | None:
    # packed first: torchvision leaves both, and the packed one has a checksum
    return next((path for path in (folder / f"{file}.gz", folder / file) if path.is_file()), None)


def _how(name: str) -> str:
    package = ORIGINS[name].package
    files = f"put the published {ORIGINS[name].files[0]}.gz, … into a folder and give it as --data-dir"
    return f"install Debian's package {package} (apt install {package}), or {files}" if package else files


def find(name: str, data_dir: Path | None) -> tuple[list[Path], str] | None:
    """Return the four files and where they are from, or None if none of them is on this machine.

    Looked for in `data_dir`, in ./data, both in torchvision's layout or directly, and where a Debian package has them.

    Raises:
        DataError: `data_dir` is not a directory, or only some of the files are there.
    """
    origin = ORIGINS[name]
    check_directory(name, data_dir)
    places = [(DOWNLOADS, "./data")]
    if data_dir is not None:
        places.insert(0, (data_dir, "--data-dir"))
    if origin.system is not None:
        places.append((origin.system, f"the Debian package {origin.package}"))
    for base, where in places:
        for folder in (base / origin.folder / "raw", base):
            paths = {file: _present(folder, file) for file in origin.files}
            found = [path for path in paths.values() if path is not None]
            if len(found) == len(origin.files):
                return found, where
            if found:
                missing = next(file for file, path in paths.items() if path is None)
                raise DataError(
                    f"{name}: {folder / missing}(.gz) is missing, though {found[0].name} is there: {_how(name)}"
                )
        if where == "--data-dir":
            warnings.warn(f"{name}: no idx files in --data-dir {base}, looking elsewhere", stacklevel=2)
    return None


def download(name: str) -> None:
    """Put the four files into ./data in torchvision's layout, from its addresses and by its checksums.

    Raises:
        DataError: There is no network or the server fails; without a network that takes seconds.
    """
    origin = ORIGINS[name]
    places = " or ".join(["./data", *([str(origin.system)] if origin.system else [])])
    if origin.archive:
        resources, unpack = [(origin.archive, origin.md5[0])], "gzip"
    else:
        resources, unpack = _resources(origin), None
    published.download(
        name,
        resources,
        DOWNLOADS / origin.folder / "raw",
        wanted=[f"{file}.gz" for file in origin.files],
        missing=f"{origin.files[0]}(.gz) and its three companions are not in {places}",
        how=_how(name),
        unpack=unpack,
    )


def _resources(origin: _Origin) -> list[tuple[str, str]]:
    try:
        from torchvision import datasets
    except ImportError:
        return []
    peer = getattr(datasets, origin.folder)
    return [(f"{peer.mirrors[0]}{file}", md5) for file, md5 in peer.resources]


def load(name: str, data_dir: Path | None) -> Published:
    """Return a data set of `ORIGINS`.

    Raises:
        DataError: It is not there and cannot be downloaded, or a file is not what it claims to be.
    """
    origin = ORIGINS[name]
    found = find(name, data_dir)
    if found is None:
        download(name)
        found = find(name, None)
    assert found is not None, "the download put the files where they are looked for"
    paths, where = found
    arrays, verified = [], 0
    for position, path in enumerate(paths):
        try:
            array, sha256 = read_idx(path, n_dims=3 if "images" in path.name else 1)
        except DataError as error:
            raise DataError(f"{name}: {error}: {_how(name)}") from error
        known = _known_as(path, position, sha256)
        if known and name not in known:
            raise DataError(f"{name}: {path} is the file of {known.pop()}, expected one of {name}: {_how(name)}")
        verified += bool(known)
        arrays.append(array)
    for images, labels, path in ((arrays[0], arrays[1], paths[0]), (arrays[2], arrays[3], paths[2])):
        _check_part(name, images, labels, path)
    if origin.is_transposed:
        arrays = [np.ascontiguousarray(a.transpose(0, 2, 1)) if a.ndim == 3 else a for a in arrays]
    checked = "published files by checksum" if verified == len(origin.files) else "not the published files byte by byte"
    return Published(
        arrays[0][:, None],
        arrays[1].astype(np.int64),
        arrays[2][:, None],
        arrays[3].astype(np.int64),
        origin.class_names,
        f"{origin.title}, idx files from {where} ({checked})",
    )


def _check_part(name: str, images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    labels_file = path.name.replace("images-idx3", "labels-idx1")
    if images.shape[1:] != (SIDE, SIDE) or not len(images):
        raise DataError(
            f"{name}: {path} has images of shape {images.shape}, expected (N, {SIDE}, {SIDE}): {_how(name)}"
        )
    if len(images) != len(labels):
        raise DataError(f"{name}: {path} has {len(images)} images, {labels_file} {len(labels)} labels: {_how(name)}")
    last = len(ORIGINS[name].class_names) - 1
    if labels.max() > last:
        raise DataError(
            f"{name}: {path.parent / labels_file} has a label {labels.max()}, expected 0 to {last}: {_how(name)}"
        )
