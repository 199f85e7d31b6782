"""A bias–variance experiment lab driven by hyperparameter search.

study (command line) → search (Optuna asks) → workers → training (many replicas, one stacked program)
→ tracking (MLflow) → history (read back as tables) → analysis → report. `lab.spec` says what a study is,
`lab.seeds` where randomness comes from, `lab.storage` where things lie, `lab.data` and `lab.models` what is trained.
`lab.decompose(probabilities, labels)` decomposes anyone's predictions.
"""

import os
from typing import Any

# On processors other than Intel's, MKL otherwise computes a product in an order that follows its place in memory, and
# a replica's bits would follow its place in the pack. MKL reads this at the first product of the process.
os.environ.setdefault("MKL_CBWR", "AUTO")

__version__ = "0.1.0"
__all__ = ["Decomposition", "decompose"]


def __getattr__(name: str) -> Any:
    """Load `decompose` when it is asked for: scipy would delay every `--help`."""
    if name not in __all__:
        raise AttributeError(f"module 'lab' has no attribute {name!r}")
    from lab.analysis import decomposition

    return getattr(decomposition, name)
