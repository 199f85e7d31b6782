"""Training curves: loss and error against epoch, and what their shape says about how long to train.

Shapes: D data resamples, I initialisations, R = D·I replicas.

The replicas of a trial are crossed (every training set with every seed), so they are not R independent numbers:
two that share a training set, or a seed, resemble each other. `mean_over_replicas` is the one place of this package
that turns replicas into a standard error, and it counts both kinds of kinship.
"""

import math
from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import pandas as pd

SPLITS = ("train", "val", "test")
MEASURES = ("risk", "error", "loss")
GL_LIMIT = 5.0  # per cent, Prechelt 1998, "Early stopping – but when?"
RISING_SHARE = 0.05  # a rise of the training loss counts from this share of what training had gained

CURVES = ["key", "phase", "number", "epoch", "n_replicas"] + [
    f"{split}_{measure}{end}" for split in SPLITS for measure in MEASURES for end in ("", "_sd")
]
CONVERGENCE = [
    "key", "phase", "number", "n_epochs", "n_replicas", "n_diverged", "best_epoch", "best_fraction", "val_best",
    "val_last", "gl", "rise", "rise_se", "fall", "fall_se", "fall_from", "overtrained", "improving",
    "best_in_last_quarter", "best_in_first_tenth", "training_loss_rising", "status",
]  # fmt: skip


class ReplicaMean(NamedTuple):
    """Mean over replicas, its standard error and degrees of freedom (NaN where too few replicas), and their number."""

    mean: float
    se: float
    df: float
    n: int


def mean_over_replicas(values_DI: np.ndarray) -> ReplicaMean:
    """Return the mean over crossed replicas with a standard error that counts shared resamples and shared seeds.

    Two-way random effects (Cameron, Gelbach & Miller 2011 for the clusters, Satterthwaite for the degrees of freedom):
    Var = V_D + V_I − V_E with V_D, V_I the variances of the mean as read from whole resamples and from whole seeds,
    V_E that of the remainder. For a full table these are MS_D/R, MS_I/R and MS_E/R, and the estimate is unbiased; it
    is kept from falling below the larger of V_D and V_I, and the degrees of freedom below min(D, I) − 1.

    Args:
        values_DI: One number a replica; NaN marks a cell that is missing. With one row, or one column, only the other
            way of clustering can be seen, and the standard error covers only that.
    """
    values_DI = np.atleast_2d(np.asarray(values_DI, dtype=np.float64))
    seen_DI = np.isfinite(values_DI)
    values_DI = values_DI[np.ix_(seen_DI.any(axis=1), seen_DI.any(axis=0))]
    seen_DI = np.isfinite(values_DI)
    n = int(seen_DI.sum())
    if n == 0:
        return ReplicaMean(math.nan, math.nan, math.nan, 0)
    mean = float(values_DI[seen_DI].mean())
    if n == 1:
        return ReplicaMean(mean, math.nan, math.nan, 1)
    rest_DI = np.where(seen_DI, values_DI - mean, 0.0)
    terms: list[tuple[float, float]] = []  # (variance of the mean, degrees of freedom) by way of clustering
    for axis in (1, 0):
        sums = rest_DI.sum(axis=axis)
        if len(sums) > 1:
            terms.append((len(sums) / (len(sums) - 1) * float((sums**2).sum()) / n**2, len(sums) - 1.0))
    if len(terms) == 1:
        return ReplicaMean(mean, math.sqrt(terms[0][0]), terms[0][1], n)
    df_rest = n - seen_DI.shape[0] - seen_DI.shape[1] + 1
    remainder = 0.0
    if df_rest > 0:
        row_D, column_I = rest_DI.sum(axis=1) / seen_DI.sum(axis=1), rest_DI.sum(axis=0) / seen_DI.sum(axis=0)
        left_DI = np.where(seen_DI, rest_DI - row_D[:, None] - column_I[None, :], 0.0)
        remainder = float((left_DI**2).sum()) / df_rest / n
    larger = max(terms[0][0], terms[1][0])
    variance = max(terms[0][0] + terms[1][0] - remainder, larger)
    floor = min(terms[0][1], terms[1][1])
    spread = sum(v**2 / df for v, df in terms) + (remainder**2 / df_rest if df_rest > 0 else 0.0)
    return ReplicaMean(mean, math.sqrt(variance), max(variance**2 / spread, floor) if spread > 0 else floor, n)


def grid_of_replicas(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return one column of per-replica rows (of one run and epoch) as a resample × init table; NaN where missing."""
    if column not in rows or rows.empty:
        return pd.DataFrame(dtype=np.float64)
    if "resample" not in rows or "init" not in rows:  # then the replicas are taken for independent ones
        return pd.DataFrame({0: pd.to_numeric(rows[column]).to_numpy(np.float64)})
    if "diverged" in rows:
        rows = rows[~rows["diverged"].astype(bool)]
    rows = rows.drop_duplicates(["resample", "init"])
    return rows.set_index(["resample", "init"])[column].astype(np.float64).unstack("init")


def training_curves(frame: pd.DataFrame, keys: Collection[str] | None = None) -> pd.DataFrame:
    """Return the curves of the chosen runs, one row an epoch: means over replicas that have not diverged, and their sd.

    Args:
        frame: The `epochs` table of a run history, or its `replicas` table (then means and sd are taken here).
        keys: The runs wanted; all if None.

    Returns:
        Columns `CURVES`, ordered by run (as in `frame`) and epoch; NaN for what was not measured.
    """
    if frame.empty or not {"key", "epoch"} <= set(frame.columns):
        return pd.DataFrame(columns=CURVES)
    if keys is not None:
        frame = frame[frame["key"].isin(list(keys))]
    order = {key: place for place, key in enumerate(frame["key"].unique())}
    if "replica" in frame:
        frame = _averaged(frame)
    table = frame.reindex(columns=CURVES)
    place = table["key"].map(order).astype(np.float64)
    return table.assign(_place=place).sort_values(["_place", "epoch"], kind="stable")[CURVES].reset_index(drop=True)


def _averaged(replicas: pd.DataFrame) -> pd.DataFrame:
    measured = [f"{s}_{m}" for s in SPLITS for m in MEASURES if f"{s}_{m}" in replicas]
    by = [name for name in ("key", "phase", "number", "epoch") if name in replicas]
    values = replicas[measured].astype(np.float64)
    if "diverged" in replicas:
        values = values.mask(replicas["diverged"].astype(bool))
    values = values.where(np.isfinite(values))
    groups = pd.concat([replicas[by], values], axis=1).groupby(by, sort=False)
    n = values.notna().any(axis=1).groupby([replicas[name] for name in by], sort=False).sum().rename("n_replicas")
    table = pd.concat([groups.mean(), groups.std(ddof=1).add_suffix("_sd"), n], axis=1)
    return table.reset_index()


def convergence(replicas: pd.DataFrame) -> pd.DataFrame:
    """Return one row a run: did the validation risk rise again, was it still falling, did the training loss rise?

    * `gl`: Prechelt's generalisation loss 100·(E_last/E_min − 1) of the mean validation risk, in per cent.
    * `overtrained`: gl > 5 and the paired rise since the best epoch exceeds two standard errors (`rise`, `rise_se`).
    * `improving`: the best epoch lies in the last quarter and the paired fall to it from the last evaluation before
      that quarter (`fall`, from epoch `fall_from`) exceeds two standard errors (`fall_se`).
    * `best_in_last_quarter`, `best_in_first_tenth`: where the best epoch lies, whether or not it matters.
    * `training_loss_rising`: the training loss ends above its minimum by more than two standard errors and by more
      than 5 % of what training had gained: a bug, or a step size too large.
    * `status`: the first that holds of "diverged" (all replicas), "training loss rising", "overtrained",
      "still improving", "settled"; "not measured" without two epochs of validation risk.

    Only replicas that never diverged enter; the others are counted in `n_diverged`. The best epoch is that of the mean
    curve: picking it for each replica would make every rise look larger than it is.
    """
    if replicas.empty or not {"key", "epoch", "val_risk"} <= set(replicas.columns):
        return pd.DataFrame(columns=CONVERGENCE)
    rows = [_converged(key, run) for key, run in replicas.groupby("key", sort=False)]
    return pd.DataFrame(rows, columns=CONVERGENCE)


class _Run(NamedTuple):
    """One run's replicas as arrays, E evaluated epochs; NaN where a replica is missing. `kept_DI` never diverged."""

    epochs_E: np.ndarray
    val_EDI: np.ndarray
    train_EDI: np.ndarray | None
    seen_DI: np.ndarray
    kept_DI: np.ndarray


def _cube(run: pd.DataFrame) -> _Run:
    epochs_E, epoch = np.unique(run["epoch"].to_numpy(np.int64), return_inverse=True)
    crossed = "resample" in run and "init" in run
    cells = [run[name].to_numpy() if name in run else np.zeros(len(run)) for name in
             (("resample", "init") if crossed else ("replica", ""))]  # fmt: skip
    (d_values, d), (i_values, i) = (np.unique(cell, return_inverse=True) for cell in cells)
    shape = (len(epochs_E), len(d_values), len(i_values))

    def filled(values: np.ndarray) -> np.ndarray:
        grid_EDI = np.full(shape, math.nan)
        grid_EDI[epoch[::-1], d[::-1], i[::-1]] = values[::-1]  # of two rows for one replica the first counts
        return grid_EDI

    val = run["val_risk"].to_numpy(np.float64)
    gone = ~np.isfinite(val) | (run["diverged"].to_numpy(bool) if "diverged" in run else False)
    gone_EDI, present_EDI = filled(gone.astype(np.float64)), np.zeros(shape, bool)
    present_EDI[epoch, d, i] = True
    seen_DI = np.any(present_EDI, axis=0)
    kept_DI = seen_DI & ~np.any(gone_EDI == 1, axis=0)
    train = next((name for name in ("train_loss", "train_risk") if name in run), None)
    return _Run(
        epochs_E,
        np.where(kept_DI, filled(val), math.nan),
        None if train is None else np.where(kept_DI, filled(run[train].to_numpy(np.float64)), math.nan),
        seen_DI,
        kept_DI,
    )


def _mean_curve(values_EDI: np.ndarray) -> np.ndarray:
    """Return the mean of each epoch; NaN where no replica is measured."""
    seen_EDI = np.isfinite(values_EDI)
    sums_E, n_E = np.where(seen_EDI, values_EDI, 0.0).sum(axis=(1, 2)), seen_EDI.sum(axis=(1, 2))
    return np.where(n_E > 0, sums_E / np.maximum(n_E, 1), math.nan)


def _converged(key: object, table: pd.DataFrame) -> dict[str, object]:
    run = _cube(table)
    n_kept, last_epoch = int(run.kept_DI.sum()), int(run.epochs_E[-1])
    row: dict[str, object] = {
        "key": key, "phase": table["phase"].iloc[0] if "phase" in table else None,
        "number": table["number"].iloc[0] if "number" in table else None, "n_epochs": last_epoch,
        "n_replicas": n_kept, "n_diverged": int(run.seen_DI.sum()) - n_kept,
    }  # fmt: skip
    for name in ("best_epoch", "best_fraction", "val_best", "val_last", "gl", "rise", "rise_se", "fall", "fall_from"):
        row[name] = math.nan
    for name in ("overtrained", "improving", "best_in_last_quarter", "best_in_first_tenth", "training_loss_rising"):
        row[name] = False
    row["status"] = "not measured" if n_kept else "diverged"
    curve = _mean_curve(run.val_EDI)
    measured = np.flatnonzero(np.isfinite(curve))
    if len(measured) < 2:
        return row
    epochs = run.epochs_E
    best, last = int(measured[curve[measured].argmin()]), int(measured[-1])
    rise = mean_over_replicas(run.val_EDI[last] - run.val_EDI[best])
    quarter = measured[epochs[measured] <= max(0.75 * last_epoch, epochs[measured[0]])]
    fall = (
        mean_over_replicas(run.val_EDI[quarter[-1]] - run.val_EDI[best])
        if quarter.size
        else ReplicaMean(0.0, math.nan, math.nan, 0)
    )
    gl = 100 * (curve[last] / curve[best] - 1) if curve[best] > 0 else math.nan
    late, early = epochs[best] > 0.75 * last_epoch, epochs[best] <= 0.1 * last_epoch
    row |= {
        "best_epoch": int(epochs[best]), "best_fraction": epochs[best] / last_epoch if last_epoch else math.nan,
        "val_best": float(curve[best]), "val_last": float(curve[last]), "gl": float(gl), "rise": rise.mean,
        "rise_se": rise.se, "fall": fall.mean, "fall_se": fall.se,
        "fall_from": int(epochs[quarter[-1]]) if quarter.size else math.nan,
        "overtrained": bool(gl > GL_LIMIT and rise.mean > 2 * rise.se),
        "improving": bool(late and fall.mean > 2 * fall.se),
        "best_in_last_quarter": bool(late), "best_in_first_tenth": bool(early),
        "training_loss_rising": _training_rises(run.train_EDI),
    }  # fmt: skip
    named = {
        "training loss rising": "training_loss_rising", "overtrained": "overtrained", "still improving": "improving",
    }  # fmt: skip
    row["status"] = next((status for status, flag in named.items() if row[flag]), "settled")
    return row


def _training_rises(values_EDI: np.ndarray | None) -> bool:
    if values_EDI is None:
        return False
    curve = _mean_curve(values_EDI)
    measured = np.flatnonzero(np.isfinite(curve))
    if len(measured) < 2:
        return False
    first, lowest, last = measured[0], measured[curve[measured].argmin()], measured[-1]
    rise = mean_over_replicas(values_EDI[last] - values_EDI[lowest])
    gained = float(curve[first] - curve[lowest])
    return bool(rise.mean > 2 * rise.se and rise.mean > RISING_SHARE * gained)
