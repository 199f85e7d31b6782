"""Anyone's predictions in an .npz file, decomposed: what is behind `python -m lab.study decompose FILE.npz`.

Legend: D resamples, I initialisations, R replicas, N points, C classes.
"""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lab.errors import SpecError

NAMES = {
    "probabilities": ("probabilities", "predictions", "probabilities_DINC"),
    "labels": ("labels", "labels_N"),
    "posterior": ("posterior", "posterior_NC"),
}


def decompose(path: Path) -> dict[str, Any]:
    """Return the decomposition of the predictions in a file, as plain values; None stands for what cannot be told.

    The file holds `probabilities` (D, I, N, C) of a crossed design or (R, N, C) of independent replicas (or the same
    named `predictions`), `labels` (N,) and, if it is known, `posterior` (N, C). Replicas that are NaN throughout are
    left out.

    Raises:
        SpecError: It is no such file, or an array is missing or wrong; one line says which and how.
    """
    from lab.analysis import decomposition

    arrays = _arrays(path)
    found = {what: next((arrays[n] for n in names if n in arrays), None) for what, names in NAMES.items()}
    probabilities, labels = found["probabilities"], found["labels"]
    if probabilities is None or labels is None:
        missing = "probabilities" if probabilities is None else "labels"
        raise SpecError(f"{path}: there is no array {missing!r}: it holds {', '.join(arrays) or 'nothing'}")
    if probabilities.ndim not in (3, 4) or probabilities.dtype.kind != "f":
        raise SpecError(
            f"{path}: probabilities are {probabilities.dtype} of shape {probabilities.shape}: "
            "give floats of shape (D, I, N, C) or (R, N, C)"
        )
    try:
        parts = decomposition.decompose(
            probabilities, labels, posterior_NC=found["posterior"],
            design="crossed" if probabilities.ndim == 4 else "independent",
        ).to_dict()  # fmt: skip
    except ValueError as error:
        raise SpecError(f"{path}: {' '.join(str(error).split())}") from error
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in parts.items()}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.lib.npyio.NpzFile):
                return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise SpecError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(f"{path} cannot be read as .npz: {' '.join(str(error).split())}") from error
    raise SpecError(f"{path} holds one array: give an .npz file with probabilities and labels")


def as_text(parts: dict[str, Any]) -> str:
    """Return a decomposition as a table for people."""
    bias = "bias²" if parts["noise"] is not None else "bias² + noise"
    rows = [("risk", "risk"), ("noise", "noise"), ("bias_sq", bias), ("variance", "variance")]
    rows += [(f"variance_{cause}", f"  by {cause}") for cause in ("resample", "init", "interaction")]
    rows += [("error", "error rate")]
    lines = [
        f"{parts['n_replicas']} replicas ({parts['design']}), {parts['n_test']} points; "
        f"Brier score (0 to 2), {parts['level']:.0%} intervals"
    ]
    for name, label in rows:
        value, low, high = (parts.get(name + end) for end in ("", "_lo", "_hi"))
        if value is not None:
            interval = "" if low is None or high is None else f"   [{low:.5f}, {high:.5f}]"
            lines.append(f"{label:<16} {value:9.5f}{interval}")
    return "\n".join(lines)
