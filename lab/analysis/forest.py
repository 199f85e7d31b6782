"""A random forest for regression, small and quick: scikit-learn's trees without its forest's checks around each tree.

For the hundreds of forests of `lab.analysis.attribution`, each of some dozen trials, those checks take half the time.
"""

import numpy as np
import sklearn
from sklearn.tree import DecisionTreeRegressor

LEAVES = 100  # about as many a tree with many trials: finer ones cost time and predict no better


def grow(
    values_NK: np.ndarray,
    target_N: np.ndarray,
    *,
    n_trees: int,
    seed: int,
    bootstrap: bool = True,
    max_features: float = 1.0,
) -> list[DecisionTreeRegressor]:
    """Return the trees of a forest (Breiman 2001).

    Args:
        values_NK: Knobs of N trials, categories as numbers.
        target_N: What to predict.
        n_trees: How many.
        seed: Of the bootstrap and of the trees.
        bootstrap: Each tree sees N trials drawn with replacement; else all.
        max_features: The share of knobs that a split chooses among.
    """
    rng = np.random.default_rng(seed)
    checks = {"assume_finite": True, "skip_parameter_validation": True}  # of each tree: three tenths of the time
    values_NK = np.ascontiguousarray(values_NK, dtype=np.float32)  # what the trees store
    target_N1 = np.ascontiguousarray(target_N[:, None], dtype=np.float64)
    n, trees = len(target_N1), []
    # what scikit-learn makes of a seed; to make it anew, rather than to seed it, is a third of the time of a small tree
    state = np.random.RandomState()
    with sklearn.config_context(**checks):
        for _ in range(n_trees):
            weight_N = np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64) if bootstrap else None
            state.seed(int(rng.integers(2**31)))
            tree = DecisionTreeRegressor(
                min_samples_leaf=max(2, n // LEAVES), max_features=max_features, random_state=state
            )
            trees.append(tree.fit(values_NK, target_N1, sample_weight=weight_N, check_input=False))
    return trees


def predict(trees: list[DecisionTreeRegressor], values_NK: np.ndarray) -> np.ndarray:
    """Return the mean prediction of the trees for each row, (N,)."""
    values_NK = np.ascontiguousarray(values_NK, dtype=np.float32)
    return np.mean([tree.tree_.predict(values_NK)[:, 0] for tree in trees], axis=0)
