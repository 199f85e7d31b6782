"""Would an ensemble help? The risk of the mean of M predictions: predicted from the parts, measured on other replicas.

Averaging M members divides by M what differs between them and leaves what they share (science: Krogh & Vedelsby 1995
for the loss of a mean; the parts are those of `lab.analysis.decomposition`):

* same_data: M seeds on one training set: bias² + noise + variance_resample + (variance_init + variance_interaction)/M;
* one_seed: M training sets from one seed: the same with resample and init exchanged;
* fresh_data: M members that share neither: bias² + noise + variance/M.

The parts come from every other training set, and the measurement from the training sets between them: on the same
replicas the two would agree by algebra, whatever the truth.

Shape suffixes: D resamples, I inits, N test points, C classes, S drawn ensembles.
"""

import math
from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from lab.analysis.decomposition import Decomposition, decompose
from lab.seeds import generator

TABLE = [
    "ensemble", "n_members", "risk_predicted", "risk_measured", "risk_measured_lo", "risk_measured_hi", "gain",
    "gain_lo", "gain_hi", "error", "n_ensembles", "n_resamples", "n_inits",
]  # fmt: skip
KINDS = ("same_data", "one_seed", "fresh_data")
MEMBERS = (1, 2, 3, 4, 6, 8, 12, 16)
MOST_DRAWS = 24  # ensembles of one size that are averaged over

Cells = tuple[tuple[int, int], ...]  # (resample, init) of each member


def predicted(risk: float, parts: dict[str, float], kind: str, n_members: int) -> float:
    """Return the risk of the mean of M predictions.

    Args:
        risk: Of a single member.
        parts: variance, variance_resample and variance_init.
        kind: One of `KINDS`: what the members share.
        n_members: M.
    """
    shared = {"same_data": parts["variance_resample"], "one_seed": parts["variance_init"], "fresh_data": 0.0}[kind]
    return risk - (1 - 1 / n_members) * (parts["variance"] - shared)


def ensembles(
    probabilities_DINC: np.ndarray,
    labels_N: np.ndarray,
    posterior_NC: np.ndarray | None = None,
    *,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return predicted and measured risk of ensembles by kind and size, one row each.

    `gain` is what the mean of the members has less than the members on average, so that what makes a training set or a
    test image hard for all of them cancels. The intervals are a delete-one-resample jackknife over the held-back
    training sets plus the part of the finite test set; NaN where too few training sets are left for them. Training
    sets of which a replica diverged are left out.

    Returns:
        Columns `TABLE`; empty with fewer than four usable training sets or two seeds.
    """
    p_DINC = probabilities_DINC[np.isfinite(probabilities_DINC).all(axis=(1, 2, 3))].astype(np.float64)
    n_usable, n_inits = p_DINC.shape[:2]
    if n_usable < 4 or n_inits < 2:
        return pd.DataFrame(columns=TABLE)
    known, held_DINC = p_DINC[::2], p_DINC[1::2]
    whole = decompose(known, labels_N, posterior_NC=posterior_NC, level=None)
    risk = _value(whole, "risk")
    parts = {name: _value(whole, name) for name in ("variance", "variance_resample", "variance_init")}
    target_NC = np.eye(p_DINC.shape[3])[labels_N] if posterior_NC is None else posterior_NC
    rows = []
    for place, kind in enumerate(KINDS):
        for n_members in MEMBERS:
            rng = generator(seed, "analysis", place, n_members)
            drawn = list(_draw(kind, n_members, len(held_DINC), n_inits, rng))
            if drawn:
                rows.append({"ensemble": kind, "n_members": n_members,
                             "risk_predicted": predicted(risk, parts, kind, n_members),
                             **_measured(held_DINC, target_NC, drawn, level),
                             "n_resamples": len(held_DINC), "n_inits": n_inits})  # fmt: skip
    return pd.DataFrame(rows, columns=TABLE)


def _value(whole: Decomposition, name: str) -> float:
    value = whole.terms[name][0]
    assert value is not None  # only the noise can be unknown
    return value


def _draw(kind: str, n_members: int, n_resamples: int, n_inits: int, rng: np.random.Generator) -> Iterator[Cells]:
    """Yield the members of different ensembles of one size: all there are, or a few for each training set or seed."""
    if kind == "fresh_data":
        if n_members > min(n_resamples, n_inits):
            return
        for _ in range(MOST_DRAWS):
            resamples, inits = rng.permutation(n_resamples)[:n_members], rng.permutation(n_inits)[:n_members]
            yield tuple(zip(resamples.tolist(), inits.tolist(), strict=True))
        return
    n_groups, n_within = (n_resamples, n_inits) if kind == "same_data" else (n_inits, n_resamples)
    if n_members > n_within:
        return
    each = max(MOST_DRAWS // n_groups, 1)
    for group in range(n_groups):
        if math.comb(n_within, n_members) <= each:
            chosen = list(combinations(range(n_within), n_members))
        else:
            chosen = [tuple(rng.permutation(n_within)[:n_members].tolist()) for _ in range(each)]
        for within in chosen:
            yield tuple((group, k) if kind == "same_data" else (k, group) for k in within)


def _measured(held_DINC: np.ndarray, target_NC: np.ndarray, drawn: list[Cells], level: float) -> dict[str, float]:
    """Return risk and gain with their intervals, and the error, of the means of drawn members."""
    n_held, n_test = len(held_DINC), len(target_NC)
    losses_SN, gains_SN, errors_S = np.empty((len(drawn), n_test)), np.empty((len(drawn), n_test)), np.empty(len(drawn))
    used_SD = np.zeros((len(drawn), n_held), dtype=bool)
    for s, cells in enumerate(drawn):
        members_MNC = np.array([held_DINC[d, i] for d, i in cells])
        mean_NC = members_MNC.mean(axis=0)
        losses_SN[s] = _loss(mean_NC, target_NC)
        gains_SN[s] = _loss(members_MNC, target_NC).mean(axis=0) - losses_SN[s]
        errors_S[s] = 1 - target_NC[np.arange(n_test), mean_NC.argmax(axis=1)].mean()
        used_SD[s, [d for d, _ in cells]] = True
    row: dict[str, float] = {"error": float(errors_S.mean()), "n_ensembles": len(drawn)}
    for name, values_SN in (("risk_measured", losses_SN), ("gain", gains_SN)):
        value, half = float(values_SN.mean()), _half_width(values_SN, used_SD, level)
        row |= {name: value, f"{name}_lo": value - half, f"{name}_hi": value + half}
    return row


def _loss(p: np.ndarray, target_NC: np.ndarray) -> np.ndarray:
    """Return the Brier loss at each test point; its expectation where the target is a posterior."""
    return 1 - 2 * (target_NC * p).sum(axis=-1) + (p**2).sum(axis=-1)


def _half_width(values_SN: np.ndarray, used_SD: np.ndarray, level: float) -> float:
    n_held, n_test = used_SD.shape[1], values_SN.shape[1]
    without = [values_SN[~used_SD[:, d]].mean() for d in range(n_held) if (~used_SD[:, d]).any()]
    if len(without) < n_held or n_held < 3:
        return math.nan
    over = (n_held - 1) / n_held * float(((without - np.mean(without)) ** 2).sum())
    variance = over + float(values_SN.mean(axis=0).var(ddof=1)) / n_test
    return float(stats.t.ppf((1 + level) / 2, n_held - 1)) * math.sqrt(variance)
