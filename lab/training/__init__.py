"""Training of many replicas at once: `fit` yields evaluations, `pack` holds the stacked weights.

Imports torch, `lab.models` and `lab.data` alone, so that it runs on a bare GPU machine.
"""

from lab.training.loop import Evaluation, count_parameters, evaluation_epochs, fit

__all__ = ["Evaluation", "count_parameters", "evaluation_epochs", "fit"]
