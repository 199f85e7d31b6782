"""One named random stream per cause: nothing in the lab touches global random state.

A stream is named by the study seed, a cause and indices: `stream(seed, "resample", d)`. Its key is a hash of that
name, so it does not depend on what else was drawn, in which order, in which process or on which device.

Replica (d, i) uses resample stream d and, for everything else that is random in training (initial weights, batch
order, dropout masks), the streams of i. A prediction is thus a function f(resample d, seed i) without a third source,
which is what the crossed two-way decomposition assumes (`lab.analysis.decomposition`).
"""

import hashlib
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Cause = Literal[
    "split",
    "resample",
    "generator",
    "init",
    "order",
    "dropout",
    "augment",
    "label_noise",
    "rebalance",
    "corruption",
    "sampler",
    "analysis",
]
CAUSES: tuple[str, ...] = get_args(Cause)


def stream(seed: int, cause: Cause, *indices: int) -> int:
    """Return the 63-bit key of a named random stream.

    Args:
        seed: The study seed.
        cause: What the randomness is for, one of `CAUSES`.
        indices: Which one: resample, initialisation, epoch, trial number …

    Raises:
        ValueError: The cause is not a known one (a typing error would silently give a stream of its own).
    """
    if cause not in CAUSES:
        raise ValueError(f"unknown cause {cause!r} of randomness: choose one of {', '.join(CAUSES)}")
    return text_key("/".join([str(int(seed)), cause, *(str(int(index)) for index in indices)])) >> 1


def text_key(text: str) -> int:
    """Return a 64-bit hash of a text, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class _Key(np.random.SeedSequence):
    """A key of Philox as it is: with `key=` numpy first asks the system for randomness that it then does not use."""

    def __init__(self, key: int) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> NDArray[np.uint64]:
        """Return the key and zeros."""
        return np.array([self._key, *[0] * (n_words - 1)], dtype=np.uint64)


def generator(seed: int, cause: Cause, *indices: int) -> np.random.Generator:
    """Return a numpy generator (Philox, counter-based) on the stream `stream(seed, cause, *indices)`."""
    return np.random.Generator(np.random.Philox(_Key(stream(seed, cause, *indices))))


def mix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each 64-bit word: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)  # arrays of unsigned integers wrap
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
