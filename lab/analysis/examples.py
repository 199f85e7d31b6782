"""Test points one by one: which are hard for every training (bias²), which depend on it (variance), whose label is odd.

Shapes: D data resamples, I initialisations, N test points, C classes.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lab.analysis.classification import prepare

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
        probabilities_DINC: Predictions; replicas that are not finite throughout are left out.
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
    variance_N, own_N = _variance(p_RNC, replicas.kept_DI)
    mean_NC = p_RNC.mean(axis=0)
    if posterior_NC is None:
        loss_N, noise_N = 1 - 2 * mean_NC[every_N, labels_N] + own_N, np.zeros(len(labels_N))
    else:
        noise_N = 1 - (posterior_NC**2).sum(axis=1)
        loss_N = 1 - 2 * (posterior_NC * mean_NC).sum(axis=1) + own_N
    votes_NC = (replicas.predicted_RN[:, :, None] == np.arange(n_classes)).sum(axis=0)
    vote_N = votes_NC.argmax(axis=1)
    agreement_N, p_vote_N = votes_NC[every_N, vote_N] / len(p_RNC), mean_NC[every_N, vote_N]
    names = [str(c) for c in range(n_classes)] if class_names is None else list(class_names)
    return pd.DataFrame({
        "index": every_N, "label": labels_N, "name": [names[c] for c in labels_N], "risk": loss_N,
        "bias_sq": loss_N - noise_N - variance_N, "variance": variance_N, "vote": vote_N,
        "vote_name": [names[c] for c in vote_N], "agreement": agreement_N, "p_label": mean_NC[every_N, labels_N],
        "p_vote": p_vote_N,
        "suspected": (vote_N != labels_N) & (agreement_N >= AGREEMENT) & (p_vote_N >= CONFIDENCE),
    }, columns=TABLE)  # fmt: skip


def votes(probabilities_DINC: np.ndarray, labels_N: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Return how many replicas predict each class, (len(indices), C)."""
    replicas = prepare(probabilities_DINC, labels_N)
    said_RK = replicas.predicted_RN[:, list(indices)]
    return (said_RK[:, :, None] == np.arange(replicas.n_classes)).sum(axis=0)


def _variance(p_RNC: np.ndarray, kept_DI: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the unbiased variance of each point and the mean ‖p‖²; NaN where no two replicas share nothing.

    ‖mean‖² is estimated by pairs of replicas that share neither training set nor seed, summed without listing them.
    """
    resample_R, init_R = np.nonzero(kept_DI)
    squares_N = np.einsum("rnc,rnc->n", p_RNC, p_RNC)
    apart_N, n_pairs = np.einsum("nc,nc->n", p_RNC.sum(axis=0), p_RNC.sum(axis=0)), len(p_RNC) ** 2
    for group_R in (resample_R, init_R):
        for g in np.unique(group_R):
            sum_NC = p_RNC[group_R == g].sum(axis=0)
            apart_N = apart_N - np.einsum("nc,nc->n", sum_NC, sum_NC)
            n_pairs -= int((group_R == g).sum()) ** 2
    apart_N, n_pairs, own_N = apart_N + squares_N, n_pairs + len(p_RNC), squares_N / len(p_RNC)
    return (own_N - apart_N / n_pairs if n_pairs else np.full(len(own_N), np.nan)), own_N


def concentration(table: pd.DataFrame, share: float = 0.1) -> float:
    """Return the share of the whole risk that the hardest points carry, `share` of all (at least one)."""
    risk = table["risk"].clip(lower=0).sort_values(ascending=False)
    total = float(risk.sum())
    return float(risk.head(max(round(share * len(risk)), 1)).sum()) / total if total > 0 else float("nan")
