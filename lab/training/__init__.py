"""Training of many replicas at once: `fit` yields evaluations, `pack` holds the stacked weights.

Needs torch and numpy alone, so that it runs on a bare GPU machine.
"""

from lab.training.evaluation import evaluation_epochs
from lab.training.job import Job
from lab.training.loop import count_parameters, fit, fit_many
from lab.training.scores import Evaluation
from lab.training.turns import epoch_seconds

__all__ = ["Evaluation", "Job", "count_parameters", "epoch_seconds", "evaluation_epochs", "fit", "fit_many"]
