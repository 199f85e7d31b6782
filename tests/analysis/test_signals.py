"""The table and the flags of signal health."""

import math

import numpy as np
import pytest

from lab.analysis import signals

NAN = math.nan


def found(first, last, **others):
    """Signals of two replicas and two layers."""
    gradients = {"signal:gradient:hidden0": np.array(first), "signal:gradient:output": np.array(last)}
    return gradients | {f"signal:{name}:0": np.array(value) for name, value in others.items()}


def test_a_gradient_a_thousandth_of_that_of_the_last_layer_has_vanished():
    numbers = signals.summary(found([1e-6, 1e-2], [1e-3, 1e-3]), {})
    assert (numbers["n_vanishing"], numbers["n_exploding"]) == (1, 0)


def test_a_gradient_a_thousand_times_that_of_the_last_layer_explodes():
    numbers = signals.summary(found([1e3, 10.0], [1.0, 1.0]), {})
    assert (numbers["n_vanishing"], numbers["n_exploding"]) == (0, 1)


def test_a_gradient_that_is_nowhere_is_counted_as_neither():
    numbers = signals.summary(found([0.0, NAN], [0.0, NAN]), {})
    assert (numbers["n_vanishing"], numbers["n_exploding"]) == (0, 0)
    assert "signal_gradient_ratio" not in numbers


def test_the_flags_come_from_the_first_evaluation_and_the_shares_from_the_last():
    first = found([1e-6, 1e-6], [1.0, 1.0], dead=[0.9, 0.9])
    last = found([1.0, 1.0], [1.0, 1.0], dead=[0.1, 0.3], update=[1e-3, 1e-2])
    numbers = signals.summary(first, last)
    assert numbers["n_vanishing"] == 2
    assert numbers["signal_dead"] == pytest.approx(0.2)
    assert numbers["signal_update"] == pytest.approx(5.5e-3)
    assert "signal_saturated" not in numbers


def test_replicas_that_were_not_measured_do_not_count():
    numbers = signals.summary(found([1.0, NAN], [2.0, NAN]), found([1.0, NAN], [1.0, NAN], saturated=[0.25, NAN]))
    assert numbers["signal_gradient_ratio"] == pytest.approx(0.5)
    assert numbers["signal_saturated"] == pytest.approx(0.25)


def test_a_linear_network_has_no_ratio():
    assert signals.summary({"signal:gradient:output": np.ones(2)}, {}) == {}


def test_the_table_has_a_row_for_each_epoch_signal_and_layer():
    steps = [found([1.0, 3.0], [5.0, NAN], dead=[0.0, 0.5]), found([NAN, NAN], [2.0, 2.0])]
    rows = signals.table([1, 7], [step | {"val_risk": np.zeros(2)} for step in steps])
    assert list(rows.columns) == list(signals.COLUMNS)
    assert rows.values.tolist() == [
        [1, "gradient", "hidden0", 0, 2.0, 1.0, 3.0, 2],
        [1, "gradient", "output", 1, 5.0, 5.0, 5.0, 1],
        [1, "dead", "0", 0, 0.25, 0.0, 0.5, 2],
        [7, "gradient", "output", 1, 2.0, 2.0, 2.0, 2],
    ]
