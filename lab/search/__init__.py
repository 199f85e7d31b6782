"""The search: Optuna asks, workers evaluate, MLflow records, Optuna is told. The only owner of Optuna, but for lab.ui.

`coordinator` runs a study, `samplers` propose, `points` are proposals without memory, `ledger` is what is stored.
"""

from lab.search.coordinator import Summary, prepare, run
from lab.search.ledger import status

__all__ = ["Summary", "prepare", "run", "status"]
