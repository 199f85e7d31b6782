"""Initial weights have the distribution that torch.nn.init gives them."""

import numpy as np
import pytest
import torch

from lab.knobs import INIT_SCHEMES
from lab.models.initialization import PLAIN_STD, SCHEMES, initial_values
from lab.models.layers import Parameter

LINEAR = Parameter("w", (300, 200), "weight", 300, 200)
CONV = Parameter("w", (40, 30, 3, 3), "weight", 270, 360)

TORCH = {
    "he_normal": torch.nn.init.kaiming_normal_,
    "he_uniform": torch.nn.init.kaiming_uniform_,
    "xavier_normal": torch.nn.init.xavier_normal_,
    "xavier_uniform": torch.nn.init.xavier_uniform_,
    "lecun_normal": lambda w: torch.nn.init.kaiming_normal_(w, nonlinearity="linear"),
    "orthogonal": torch.nn.init.orthogonal_,
    "normal": lambda w: torch.nn.init.normal_(w, std=PLAIN_STD),
    "uniform": lambda w: torch.nn.init.uniform_(w, -PLAIN_STD, PLAIN_STD),
    "torch_default": lambda w: torch.nn.init.kaiming_uniform_(w, a=5**0.5),
}


def drawn(parameter, scheme, gain=1.0):
    return initial_values([parameter], scheme, gain, np.random.default_rng(0)).reshape(parameter.shape)


def test_every_named_scheme_is_built():
    assert set(SCHEMES) == set(INIT_SCHEMES) == set(TORCH)


@pytest.mark.parametrize("scheme", INIT_SCHEMES)
@pytest.mark.parametrize("parameter", [LINEAR, CONV], ids=["linear", "conv"])
def test_the_spread_is_torchs(scheme, parameter):
    ours = drawn(parameter, scheme)
    shape = parameter.shape[::-1] if len(parameter.shape) == 2 else parameter.shape  # torch stores (out, in)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = TORCH[scheme](torch.empty(shape)).numpy()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.02)
    assert abs(ours.mean()) < 4 * ours.std() / np.sqrt(ours.size)
    kurtosis = [((w - w.mean()) ** 4).mean() / w.var() ** 2 for w in (ours, theirs)]
    assert kurtosis[0] == pytest.approx(kurtosis[1], rel=0.06)  # normal 3, uniform 1.8


@pytest.mark.parametrize("parameter", [LINEAR, Parameter("w", (200, 300), "weight", 200, 300), CONV])
def test_orthogonal_weights_have_orthonormal_rows_or_columns(parameter):
    w = drawn(parameter, "orthogonal")
    matrix = w if w.ndim == 2 else w.reshape(w.shape[0], -1)
    small = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-12)


def test_the_gain_multiplies_the_weights():
    np.testing.assert_allclose(drawn(LINEAR, "he_normal", 3.0), 3 * drawn(LINEAR, "he_normal"))


def test_biases_start_at_0_and_scales_at_1_except_for_torch_default():
    others = [Parameter("b", (500,), "bias", 100, 500), Parameter("s", (5,), "scale", 5, 5)]
    values = initial_values(others, "he_normal", 1.0, np.random.default_rng(0))
    assert (values == [0.0] * 500 + [1.0] * 5).all()
    values = initial_values(others, "torch_default", 7.0, np.random.default_rng(0))[:500]
    assert 0.09 < np.abs(values).max() <= 0.1  # U(±1/√fan_in), whatever the gain


def test_an_unknown_scheme_is_an_error():
    with pytest.raises(ValueError, match="unknown initialisation scheme 'zeros'"):
        drawn(LINEAR, "zeros")
