"""The search: Optuna asks, workers evaluate, MLflow records, Optuna is told. The only owner of Optuna, but for lab.ui.

`session` opens and closes, `coordinator` runs the study, `samplers` propose (`points`: proposals without memory),
`ledger` is what is stored. An outcome becomes a result in `results`, by way of a `publisher`; `publish` sends
what could not be sent then.
"""

from lab.search.ledger import Record, records, status
from lab.search.publish import publish
from lab.search.session import Summary, prepare, run

__all__ = ["Record", "Summary", "prepare", "publish", "records", "run", "status"]
