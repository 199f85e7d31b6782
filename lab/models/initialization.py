"""Initial weights: one function a scheme, named in `SCHEMES`.

Every scheme draws in float64 from the generator of one init stream, so that init i is the same in every pack, process
and device, and multiplies the weight by the gain. Biases start at 0 and the scales of a normalisation at 1, except for
`torch_default`, whose biases are drawn as torch.nn.Linear and Conv2d draw them.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lab.models.layers import Parameter

Array = NDArray[np.float64]
Scheme = Callable[[np.random.Generator, "Parameter"], Array]

PLAIN_STD = 0.05  # of `normal`, and half-width of `uniform`: Keras's RandomNormal and RandomUniform defaults


def _normal(std: "Callable[[Parameter], float]") -> Scheme:
    return lambda rng, p: std(p) * rng.standard_normal(p.shape)


def _uniform(bound: "Callable[[Parameter], float]") -> Scheme:
    return lambda rng, p: rng.uniform(-bound(p), bound(p), p.shape)


def orthogonal(rng: np.random.Generator, parameter: "Parameter") -> Array:
    """Return a weight whose map has orthonormal rows or columns, Haar-distributed (Saxe et al. 2014)."""
    n_out = parameter.shape[0] if len(parameter.shape) == 4 else parameter.shape[-1]
    n_in = int(np.prod(parameter.shape)) // n_out
    gaussian = rng.standard_normal((max(n_in, n_out), min(n_in, n_out)))
    q, r = np.linalg.qr(gaussian)
    q = q * np.sign(np.diag(r))  # without the signs the distribution is not uniform (Mezzadri 2007)
    linear_map = q if n_in >= n_out else q.T  # (in, out)
    return linear_map.T.reshape(parameter.shape) if len(parameter.shape) == 4 else linear_map


SCHEMES: dict[str, Scheme] = {
    "he_normal": _normal(lambda p: (2 / p.fan_in) ** 0.5),  # He et al. 2015
    "he_uniform": _uniform(lambda p: (6 / p.fan_in) ** 0.5),
    "xavier_normal": _normal(lambda p: (2 / (p.fan_in + p.fan_out)) ** 0.5),  # Glorot & Bengio 2010
    "xavier_uniform": _uniform(lambda p: (6 / (p.fan_in + p.fan_out)) ** 0.5),
    "lecun_normal": _normal(lambda p: (1 / p.fan_in) ** 0.5),  # LeCun et al. 1998
    "orthogonal": orthogonal,
    "normal": _normal(lambda p: PLAIN_STD),
    "uniform": _uniform(lambda p: PLAIN_STD),
    "torch_default": _uniform(lambda p: p.fan_in**-0.5),  # kaiming_uniform(a=√5), as torch.nn.Linear and Conv2d
}


def initial_values(parameters: "Sequence[Parameter]", scheme: str, gain: float, rng: np.random.Generator) -> Array:
    """Return the initial values of one network, flattened and concatenated in the order of `parameters`, shape (P,).

    Raises:
        ValueError: The scheme is unknown, or is that of a module of one's own.
    """
    if scheme == "own":
        raise ValueError("init_scheme 'own' keeps what a module of the study file gives itself: choose another here")
    if scheme not in SCHEMES:
        raise ValueError(f"unknown initialisation scheme {scheme!r}: choose one of {', '.join(SCHEMES)}")
    values = []
    for parameter in parameters:
        if parameter.kind == "weight":
            value = gain * SCHEMES[scheme](rng, parameter)
        elif parameter.kind == "bias" and scheme == "torch_default":
            value = rng.uniform(-(parameter.fan_in**-0.5), parameter.fan_in**-0.5, parameter.shape)
        else:
            value = np.full(parameter.shape, 1.0 if parameter.kind == "scale" else 0.0)
        values.append(value.ravel())
    return np.concatenate(values)
