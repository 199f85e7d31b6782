"""The hash behind dropout masks and augmentation, against the published one in whole numbers."""

import torch

from lab.training.counters import hashed


def lowbias32(x):
    """As Wellons 2018 gives it in C, for unsigned numbers of 32 bits."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    return x ^ x >> 16


def test_with_keys_of_0_it_is_lowbias32():
    counters = [0, 1, 2, 77, 65_535, 65_536, 2**31 - 1]
    nothing = torch.zeros(1, 1, dtype=torch.int32)
    found = hashed(torch.tensor(counters, dtype=torch.int32), (nothing, nothing))[0]
    assert [int(h) % 2**32 for h in found] == [lowbias32(x) for x in counters]


def test_a_key_takes_each_number_to_another_one():
    """Each round can be undone: 100,000 counters have as many hashes, whatever the key."""
    counters = torch.arange(100_000, dtype=torch.int32)
    for first, second in ((0, 0), (-5, 9), (123_456_789, -(2**31))):
        keys = tuple(torch.full((1, 1), half, dtype=torch.int32) for half in (first, second))
        assert len(hashed(counters, keys).unique()) == 100_000
