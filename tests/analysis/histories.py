"""Run histories with a known answer, made of formulas, for the tests of diagnosis, advice and checks."""

import math

import numpy as np
import pandas as pd


def run(bias_sq, variance, *, width=0.05, noise=None, phase="confirm", number=0, **columns):
    """Return a row of `trials`; `width` is the half-width of each interval over bias² + variance."""
    row = {
        "key": f"{phase}-{number:04d}", "phase": phase, "number": number, "started": float(number),
        "outcome": "finished", "width": 64, "depth": 2, "n_parameters": 5000, "learning_rate": 3e-3, "epochs": 60,
        "n_train": 150, "n_resamples": 8, "n_inits": 4, "n_replicas": 32, "n_diverged": 0,
        "train_error": 0.01, "val_error": 0.08, "val_risk": bias_sq + variance,
    }  # fmt: skip
    half = width * (bias_sq + variance)
    parts = {"bias_sq": bias_sq, "variance": variance, "risk": bias_sq + variance + (noise or 0.0)}
    parts |= {"variance_resample": 0.6 * variance, "variance_init": 0.0, "variance_interaction": 0.0}
    for name, value in parts.items():
        row |= {name: value, f"{name}_lo": value - half, f"{name}_hi": value + half}
    row |= {f"noise{end}": math.nan if noise is None else noise for end in ("", "_lo", "_hi")}
    return row | columns


def trials(*rows):
    return pd.DataFrame(list(rows))


def learning(risks, width=0.005):
    rows = [run(r / 2, r / 2, width=width, phase="learning_curve", number=k, n_train=round(75 * 2 ** (k / 2)))
            for k, r in enumerate(risks)]  # fmt: skip
    return rows


def levels(parts, width=0.02):
    """Return explore trials of widths 16, 32, 64, 128 … with (bias², variance) of each."""
    return [run(b, v, width=width, phase="explore", number=k) | {"width": 16 * 2**k, "n_parameters": 1600 * 2**k}
            for k, (b, v) in enumerate(parts)]  # fmt: skip


def curves(shape, train=lambda e: math.exp(-e / 10)):
    rng, rows = np.random.default_rng(0), []
    for r in range(32):
        rows += [{"key": "confirm-0000", "phase": "confirm", "number": 0, "epoch": e, "replica": r,
                  "resample": 8 + r // 4, "init": r % 4, "diverged": False, "train_loss": train(e),
                  "val_risk": shape(e) + 0.005 * rng.standard_normal()}
                 for e in (0, 5, 15, 30, 45, 60)]  # fmt: skip
    return pd.DataFrame(rows)


SPEC = {
    "replication": {"scheme": "disjoint", "n_resamples": 8, "n_inits": 4},
    "space": {
        "width": {"kind": "int", "low": 4, "high": 64, "log": True}, "depth": {"kind": "int", "low": 1, "high": 4},
        "learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "dropout": {"kind": "float", "low": 0.0, "high": 0.5, "log": False},
    },
}  # fmt: skip
DATA = {"n_pool": 1500, "n_test": 400, "class_names": list("0123456789")}
