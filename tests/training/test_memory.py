"""What training holds at its peak, measured in a process of its own, beside what it cannot do without."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1.3  # times weights, gradient and optimiser state
N_REPLICAS = 32
CODE = f"""
import resource, torch
from lab import training
from lab.data.datasets import load
from lab.knobs import TrialConfig
from lab.spec import Replication
torch.set_num_threads(1)

def kib(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))

def train(config, n_resamples):
    plan = Replication(scheme="bootstrap", n_resamples=n_resamples, n_inits=2)
    for _ in training.fit(config, digits, plan, seed=0, n_evaluations=2, pack_size=64):
        pass

digits = load("digits", seed=0, n_test=20, n_validation=20)
small = dict(depth=2, epochs=2, n_train=16, batch_size=8)
train(TrialConfig(width=8, **small), 2)  # whatever is loaded or built once
before = kib("VmRSS")
config = TrialConfig(width=1024, **small)
train(config, {N_REPLICAS} // 2)
print(kib("VmHWM") - before, training.count_parameters(config, digits.image_shape, 10))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_peak_memory_of_large_networks_is_little_more_than_weights_gradients_and_optimiser_state():
    """Large weights and few activations; Adam. One gradient of all weights more would be a quarter more."""
    found = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert not found.returncode, found.stderr
    peak_kib, n_parameters = map(int, found.stdout.split())
    needed = 4 * n_parameters * 4 * N_REPLICAS  # weights, gradient, two moments, of 4 bytes a value
    assert 0.95 < 1024 * peak_kib / needed <= LIMIT
