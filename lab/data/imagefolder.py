"""A folder of class folders as a data set: `imagefolder:PATH`, `imagefolder:PATH@64`, `imagefolder:PATH@64,grey`.

Below PATH there is one folder a class, with its images (or PATH/train and PATH/test, each with such folders: then the
test set comes from the latter). An image is turned upright by its EXIF tag, cut to a square around its middle, and
resized to SIDE pixels, 32 by default. If all images are grey, or "grey" is asked for, they have one channel, else
three.

Decoding is done once: the result is kept in ./data/imagefolder under a digest of the files' names, sizes and times.
Files that cannot be read as images are left out and named in `Dataset.notes`.
"""

import hashlib
import json
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lab.data.published import DOWNLOADS
from lab.errors import DataError

PREFIX = "imagefolder:"
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
SIDE, MOST = 32, 1024
_NAME = re.compile(r"imagefolder:(?P<path>.+?)(@(?P<side>\d+))?(?P<grey>,grey)?")


class Folder(NamedTuple):
    """Images (N, channels, side, side) uint8, labels (N,), whether each is of the test part, and what was left out."""

    images: np.ndarray
    labels: np.ndarray
    is_test: np.ndarray
    class_names: tuple[str, ...]
    unreadable: tuple[str, ...]


def parse(name: str) -> tuple[Path, int, bool]:
    """Return the folder, the side and whether to make images grey, from the name of a data set.

    Raises:
        DataError: There is no such folder, or the side is not from 1 to 1024.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name}: give the folder, e.g. {PREFIX}pictures/flowers or {PREFIX}pictures/flowers@64,grey")
    path, side = Path(match["path"]).expanduser(), int(match["side"] or SIDE)
    if not 1 <= side <= MOST:
        raise DataError(f"{name}: a side of {side} pixels: give 1 to {MOST}")
    if not path.is_dir():
        raise DataError(f"{name}: {path} is not a folder: give one that holds a folder for each class")
    return path, side, match["grey"] is not None


def load(name: str) -> Folder:
    """Return the images of a folder, from the cache if the files have not changed since.

    Raises:
        DataError: There is no such folder, or fewer than two classes, or a class without a readable image.
    """
    path, side, grey = parse(name)
    class_names, files = _files(path, name)
    key = hashlib.sha256(f"{side},{grey};".encode())
    for file, label, is_test in files:
        status = file.stat()
        key.update(f"{file.relative_to(path)}|{label}|{is_test}|{status.st_size}|{status.st_mtime_ns};".encode())
    cache = DOWNLOADS / "imagefolder" / f"{key.hexdigest()[:32]}.npz"
    folder = _cached(cache, class_names)
    if folder is None:
        folder = _decoded(path, side, grey, class_names, files)
        _keep(folder, cache)
    counts = np.bincount(folder.labels, minlength=len(class_names))
    if not counts.all():
        empty = class_names[int(np.argmin(counts))]
        raise DataError(f"{name}: class {empty} has no readable image: remove its folder or add images")
    return folder


def _classes(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(path: Path, name: str) -> tuple[tuple[str, ...], list[tuple[Path, int, bool]]]:
    """Return the names of the classes, and each image file with its label and whether it is of the test part."""
    parts = [(path, False)]
    if (path / "train").is_dir() and (path / "test").is_dir() and set(_classes(path)) <= {"train", "test", "val"}:
        parts = [(path / "train", False), (path / "test", True)]
    class_names = _classes(parts[0][0])
    if len(class_names) < 2:
        raise DataError(f"{name}: {parts[0][0]} holds {len(class_names)} class folders, expected 2 or more")
    files = []
    for folder, is_test in parts:
        unknown = set(_classes(folder)) - set(class_names)
        if unknown:
            raise DataError(f"{name}: {folder / min(unknown)} is no class of {parts[0][0]}: rename or remove it")
        for label, class_name in enumerate(class_names):
            found = sorted(file for file in (folder / class_name).rglob("*") if file.suffix.lower() in SUFFIXES)
            files += [(file, label, is_test) for file in found]
    return tuple(class_names), files


def _decoded(
    path: Path, side: int, grey: bool, class_names: tuple[str, ...], files: list[tuple[Path, int, bool]]
) -> Folder:
    images, kept, unreadable, all_grey = [], [], [], True
    for k, (file, _, _) in enumerate(files):
        decoded = _decode(file, side)
        if decoded is None:
            unreadable.append(str(file.relative_to(path)))
            continue
        image_HWC, is_grey = decoded
        images.append(image_HWC.transpose(2, 0, 1))
        kept.append(k)
        all_grey &= is_grey
    stacked = np.stack(images) if images else np.zeros((0, 3, side, side), dtype=np.uint8)
    if grey and not all_grey:  # luma of ITU-R BT.601, as Pillow's mode L
        stacked = np.rint(np.tensordot(stacked, [0.299, 0.587, 0.114], axes=(1, 0))).astype(np.uint8)[:, None]
    elif all_grey:
        stacked = np.ascontiguousarray(stacked[:, :1])
    labels = np.array([files[k][1] for k in kept], dtype=np.int64)
    is_test = np.array([files[k][2] for k in kept], dtype=bool)
    return Folder(stacked, labels, is_test, class_names, tuple(unreadable))


def _decode(file: Path, side: int) -> tuple[np.ndarray, bool] | None:
    """Return the image (side, side, 3) uint8 and whether it is grey; None if it cannot be read."""
    from PIL import Image, ImageOps

    try:
        # of size, palettes, broken tags and the like: nothing that a user could act upon
        with warnings.catch_warnings(action="ignore"), Image.open(file) as opened:
            is_grey = opened.mode in ("1", "L", "LA")
            upright = ImageOps.exif_transpose(opened).convert("RGB")
            left, top = ((size - min(upright.size)) // 2 for size in upright.size)
            square = upright.crop((left, top, left + min(upright.size), top + min(upright.size)))
            return np.asarray(square.resize((side, side), Image.Resampling.LANCZOS)), is_grey
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _cached(cache: Path, class_names: tuple[str, ...]) -> Folder | None:
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            unreadable = tuple(json.loads(bytes(arrays["unreadable"]).decode()))
            return Folder(arrays["images"], arrays["labels"], arrays["is_test"], class_names, unreadable)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # absent, or cut off by a kill: it is made again


def _keep(folder: Folder, cache: Path) -> None:
    cache.parent.mkdir(parents=True, exist_ok=True)
    unreadable = np.frombuffer(json.dumps(folder.unreadable).encode(), dtype=np.uint8)
    partial = cache.with_suffix(".partial.npz")
    np.savez(
        partial, allow_pickle=False, images=folder.images, labels=folder.labels, is_test=folder.is_test,
        unreadable=unreadable,
    )  # fmt: skip
    partial.replace(cache)


def notes(folder: Folder) -> Iterator[str]:
    """Yield what the user ought to know of what was left out, one line."""
    n = len(folder.unreadable)
    if n:
        shown = ", ".join(folder.unreadable[:5]) + (", …" if n > 5 else "")
        yield f"{n} file{'s' if n > 1 else ''} left out, unreadable as images: {shown}"
