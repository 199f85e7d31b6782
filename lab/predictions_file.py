"""Anyone's predictions in an .npz file, decomposed: what is behind `python -m lab.study decompose FILE.npz`.

Legend: D resamples, I initialisations, R replicas, N points, C classes.
"""

import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lab.errors import SpecError, one_line

if TYPE_CHECKING:
    from lab.analysis.decomposition import Decomposition

NAMES = {
    "probabilities": ("probabilities", "predictions", "probabilities_DINC"),
    "logits": ("logits", "log_probabilities", "log_probabilities_DINC"),
    "labels": ("labels", "labels_N"),
    "posterior": ("posterior", "posterior_NC"),
}
UNITS = {"brier": "Brier score (0 to 2)", "cross_entropy": "cross-entropy (nats)", "zero_one": "error rate"}
CAUSES = {
    "resample": "resample", "init": "init", "interaction": "interaction", "label_noise": "label noise",
    "resample_label_noise": "resample × label noise", "init_label_noise": "init × label noise",
    "three_way": "all three together",
}  # fmt: skip
_SHAPES = "(D, I, N, C), (D, I, K, N, C) or (R, N, C)"


def decompose(path: Path, *, loss: str = "brier", design: str | None = None, level: float = 0.95) -> dict[str, Any]:
    """Return the decomposition of the predictions in a file, as plain values; None stands for what cannot be told.

    The file holds `probabilities` (or the same named `predictions`), or `logits`, of shape (D, I, N, C), with redrawn
    label noise (D, I, K, N, C), or (R, N, C) for independent replicas; for the zero-one loss also class numbers
    (D, I, N) or (R, N); `labels` (N,) and, if it is known, `posterior` (N, C). Replicas that are NaN throughout are
    left out. The predictions.npz of a run is such a file.

    Args:
        path: Of the .npz file.
        loss: One of `UNITS`.
        design: crossed, nested or independent; None for what the shape suggests.
        level: Of the intervals.

    Raises:
        SpecError: It is no such file, or an array is missing or wrong; one line says which and how.
    """
    from lab.analysis import decomposition

    arrays = _arrays(path)
    found = {what: next((arrays[n] for n in names if n in arrays), None) for what, names in NAMES.items()}
    what = "logits" if found["probabilities"] is None and found["logits"] is not None else "probabilities"
    for needed in (what, "labels"):
        if found[needed] is None:
            raise SpecError(f"{path}: there is no array {needed!r}: it holds {', '.join(arrays) or 'nothing'}")
    given, labels = found[what], found["labels"]
    assert given is not None and labels is not None
    are_classes = loss == "zero_one" and given.dtype.kind in "iu"
    n_axes = given.ndim + are_classes
    if n_axes not in (3, 4, 5) or given.dtype.kind != ("i" if are_classes else "f"):
        raise SpecError(f"{path}: {what} are {given.dtype} of shape {given.shape}: give floats of shape {_SHAPES}")
    try:
        result = decomposition.decompose(
            given if what == "probabilities" else None, labels, logits=given if what == "logits" else None,
            loss=cast(decomposition.Loss, loss), posterior_NC=found["posterior"], level=level,
            design=cast(decomposition.Design, design or ("independent" if n_axes == 3 else "crossed")),
        )  # fmt: skip
    except ValueError as error:
        raise SpecError(f"{path}: {one_line(error)}") from error
    parts = result.to_dict() | {"no_interval": result.unsure(), "coverage": covered(result)}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in parts.items()}


def covered(parts: "Decomposition") -> dict[str, str]:
    """Return what is to be said of the coverage of intervals: term → a remark where it was measured to fall short."""
    from lab.analysis import coverage

    if parts.design != "crossed" or parts.n_noise_draws > 1 or parts.level != coverage.LEVEL:
        return {}
    remarks = {
        name: coverage.remark(name, parts.n_resamples, parts.n_inits, loss=parts.loss)
        for name, term in parts.terms.items() if term.lo is not None and not math.isnan(term.lo)
    }  # fmt: skip
    return {name: text for name, text in remarks.items() if text}


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.lib.npyio.NpzFile):
                return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise SpecError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = one_line(error)
        if "contains pickled" in why:  # numpy says so of any file of another kind, and how pickles are opened
            why = "it is a file of another kind"
        raise SpecError(f"{path} cannot be read as .npz: {why}") from error
    raise SpecError(f"{path} holds one array: give an .npz file with probabilities and labels")


def as_text(parts: dict[str, Any]) -> str:
    """Return a decomposition as a table for people."""
    from lab.analysis.zero_one import ENOUGH

    lines = [
        f"{parts['n_replicas']} replicas ({parts['design']}), {parts['n_test']} points; "
        f"{UNITS[parts['loss']]}, {parts['level']:.0%} intervals"
    ]
    for name in (key.removesuffix("_lo") for key in parts if key.endswith("_lo")):
        value, low, high = (parts[name + end] for end in ("", "_lo", "_hi"))
        if value is not None:
            interval = "" if low is None or high is None else f"   [{low:.5f}, {high:.5f}]"
            mark = " *" if name in parts["coverage"] else ""
            lines.append(f"{_label(name, noise_known=parts['noise'] is not None):<30} {value:9.5f}{interval}{mark}")
    for reason in dict.fromkeys(parts["no_interval"].values()):
        names = [_label(n, noise_known=parts["noise"] is not None).strip() for n, r in parts["no_interval"].items()
                 if r == reason]  # fmt: skip
        lines.append(f"no interval for {', '.join(names)}: {reason}")
    lines += [f"* {text}" for text in dict.fromkeys(parts["coverage"].values())]
    if parts["loss"] == "cross_entropy":
        lines.append("bias and variance: bias-corrected by the jackknife, approximate")
    if parts["loss"] == "zero_one" and parts["n_replicas"] < ENOUGH:
        lines.append(f"fewer than {ENOUGH} replicas: main predictions, and what rests on them, are not to be trusted")
    return "\n".join(lines)


def _label(name: str, *, noise_known: bool) -> str:
    """Return a term in words: causes are indented below the variance they are part of."""
    view, term = ("Kohavi–Wolpert ", name.removeprefix("kw_")) if name.startswith("kw_") else ("", name)
    if term in ("bias", "bias_sq"):
        return view + term.replace("bias_sq", "bias²") + ("" if noise_known else " + noise")
    if term == "error":
        return "error rate"
    kind, _, cause = term.partition("_")
    if kind != "variance" or not cause or term == "variance_effect":
        return view + term.replace("_", " ")
    return f"  {view}by {CAUSES[cause]}" if cause in CAUSES else f"  {cause.replace('_', ' ')} {kind}"
