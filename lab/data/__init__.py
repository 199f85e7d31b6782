"""What is trained on: data sets by name, the training sets drawn from them, and preprocessing.

datasets (`load(name)` → `Dataset`: pool, validation, test) → resampling (`draw_resample` → the training set of a
replica) → transforms (statistics of that training set). Data sets: idx (MNIST and its relatives), cifar, svhn, stl10,
gaussians.
"""

from lab.data.datasets import DATASETS, NAMES, load, register
from lab.data.pool import Dataset, Pool, cut

__all__ = ["DATASETS", "NAMES", "Dataset", "Pool", "cut", "load", "register"]
