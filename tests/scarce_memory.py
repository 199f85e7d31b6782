"""A device whose memory runs out now and then."""

import itertools

import torch

from lab.training import crew, loop


def runs_out(monkeypatch, steps):
    """Have the memory run out in these steps, counted from 0, on a device on which that is an exception."""
    step, count = loop._differentiate, itertools.count()

    def sometimes(of_crew, sets, moment):
        if next(count) in steps:
            raise torch.OutOfMemoryError
        step(of_crew, sets, moment)

    class Saving(crew.Crew):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.saves = True

    monkeypatch.setattr(crew, "Crew", Saving)
    monkeypatch.setattr(loop, "_differentiate", sometimes)
