"""Training of many replicas at once: `fit` yields evaluations, `pack` holds the stacked weights.

Imports torch, `lab.models` and `lab.data` alone, so that it runs on a bare GPU machine.
"""

import os

from lab.training.evaluation import evaluation_epochs
from lab.training.job import Job
from lab.training.loop import count_parameters, fit, fit_many
from lab.training.scores import Evaluation
from lab.training.turns import epoch_seconds

__all__ = ["Evaluation", "Job", "count_parameters", "epoch_seconds", "evaluation_epochs", "fit", "fit_many"]

# On processors other than Intel's, MKL otherwise computes a product in an order that follows its place in memory, and
# a replica's bits would follow its place in the pack. MKL reads this at its first product.
os.environ.setdefault("MKL_CBWR", "AUTO")
