"""The search: Optuna asks, workers evaluate, MLflow records, Optuna is told. The only owner of Optuna, but for lab.ui.

`session` opens and closes, `coordinator` runs the study, `samplers` propose (`points`: proposals without memory),
`ledger` is what is stored.
"""

from lab.search.ledger import status
from lab.search.session import Summary, prepare, run

__all__ = ["Summary", "prepare", "run", "status"]
