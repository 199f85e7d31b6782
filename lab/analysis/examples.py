"""Test points one by one: which are hard for every training (bias²), which depend on it (variance), whose label is odd.

Shapes: D data resamples, I initialisations, N test points, C classes.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.analysis.classification import prepare
from lab.analysis.decomposition import decompose

TABLE = [
    "index", "label", "name", "risk", "bias_sq", "variance", "vote", "vote_name", "agreement", "p_label", "p_vote",
    "suspected",
]  # fmt: skip
AGREEMENT, CONFIDENCE = 0.9, 0.8  # of replicas on another class, and their mean probability for it: a label to check


def per_example(
    probabilities_DINC: np.ndarray,
    labels_N: np.ndarray,
    posterior_NC: np.ndarray | None = None,
    *,
    class_names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Return one row a test point: its Brier risk, bias² and variance over replicas, and how the replicas vote.

    The parts are the unbiased ones of `lab.analysis.decomposition`, of a single point: noisy, and negative at times.
    `vote` is the class that most replicas predict, `agreement` the share of them that do, `p_label` and `p_vote` the
    mean probabilities of the label and of the vote. `suspected`: nearly all replicas (90 %) are sure (80 %) of one
    other class, as they are when a label is wrong; also of a clear case that looks like another class, so look at it.

    Args:
        probabilities_DINC: Predictions, (D, I, N, C) or with draws of the label noise (D, I, K, N, C); replicas that
            are not finite throughout are left out.
        labels_N: Class numbers.
        posterior_NC: P(class | point), if known: bias² is then without the noise.
        class_names: For the columns `name` and `vote_name`.

    Returns:
        Columns `TABLE`; empty if no replica is left.
    """
    replicas = prepare(probabilities_DINC, labels_N)
    p_RNC, n_classes, every_N = replicas.probabilities_RNC, replicas.n_classes, np.arange(len(labels_N))
    if not len(p_RNC):
        return pd.DataFrame(columns=TABLE)
    parts = decompose(
        probabilities_DINC, labels_N, posterior_NC=posterior_NC, level=None,
        missing_DI=~np.isfinite(probabilities_DINC).all(axis=(-2, -1)),
    ).per_example  # fmt: skip
    mean_NC = p_RNC.mean(axis=0)
    votes_NC = (replicas.predicted_RN[:, :, None] == np.arange(n_classes)).sum(axis=0)
    vote_N = votes_NC.argmax(axis=1)
    agreement_N, p_vote_N = votes_NC[every_N, vote_N] / len(p_RNC), mean_NC[every_N, vote_N]
    names = [str(c) for c in range(n_classes)] if class_names is None else list(class_names)
    return pd.DataFrame({
        "index": every_N, "label": labels_N, "name": [names[c] for c in labels_N], "risk": parts["risk"],
        "bias_sq": parts["bias_sq"], "variance": parts["variance"], "vote": vote_N,
        "vote_name": [names[c] for c in vote_N], "agreement": agreement_N, "p_label": mean_NC[every_N, labels_N],
        "p_vote": p_vote_N,
        "suspected": (vote_N != labels_N) & (agreement_N >= AGREEMENT) & (p_vote_N >= CONFIDENCE),
    }, columns=TABLE)  # fmt: skip


def votes(probabilities_DINC: np.ndarray, labels_N: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Return how many replicas predict each class, (len(indices), C)."""
    replicas = prepare(probabilities_DINC, labels_N)
    said_RK = replicas.predicted_RN[:, list(indices)]
    return (said_RK[:, :, None] == np.arange(replicas.n_classes)).sum(axis=0)


def concentration(table: pd.DataFrame, share: float = 0.1) -> float:
    """Return the share of the whole risk that the hardest points carry, `share` of all (at least one)."""
    risk = table["risk"].clip(lower=0).sort_values(ascending=False)
    total = float(risk.sum())
    return float(risk.head(max(round(share * len(risk)), 1)).sum()) / total if total > 0 else float("nan")
