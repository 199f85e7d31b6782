"""What the speed benchmarks time: the lab's own training, and the loops over single networks that it is held against.

Every function here trains for some seconds and returns how many replica-steps it did (one optimiser step of one
network), in how much wall and processor time. Images are random: no data set is needed, and no time depends on them.
"""

import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lab import models, training
from lab.data.pool import Dataset, Pool
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training.strategy import pack_size

N_CLASSES = 10
N_BATCHES = 4  # of an epoch
WARM_UP = 1  # epochs that are not timed


@dataclass(frozen=True)
class Case:
    """A network, its images and its batch; R replicas are wanted."""

    family: str
    depth: int
    width: int
    image_shape: tuple[int, int, int]
    batch: int
    replicas: int

    @property
    def name(self) -> str:
        channels, height, width = self.image_shape
        return f"{self.family} width {self.width} depth {self.depth}, {channels}×{height}×{width}, batch {self.batch}"

    @property
    def config(self) -> TrialConfig:
        return TrialConfig(
            family=self.family, depth=self.depth, width=self.width, norm="batch" if self.family == "resnet" else "none",
            batch_size=self.batch, n_train=N_BATCHES * self.batch, epochs=100_000,
        )  # fmt: skip

    def row(self) -> dict[str, object]:
        return asdict(self) | {"image_shape": "×".join(map(str, self.image_shape))}


class Work(NamedTuple):
    """What was done in a time."""

    replica_steps: int
    seconds: float
    processor_seconds: float

    @property
    def rate(self) -> float:
        """Replica-steps a second."""
        return self.replica_steps / self.seconds

    @property
    def cost(self) -> float:
        """Processor seconds a replica-step: what neighbours on the machine disturb least."""
        return self.processor_seconds / self.replica_steps


class Full(Exception):
    """The time is up."""


class Stopwatch:
    """Counts laps after the first `WARM_UP` of them, until the time is up."""

    def __init__(self, seconds: float, device: str, min_laps: int = 1) -> None:
        self.limit, self.min_laps, self.device = seconds, min_laps, device
        self.laps = 0
        self.start = (0.0, 0.0)

    def lap(self) -> None:
        """End a lap.

        Raises:
            Full: The time is up.
        """
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize()
        now = (time.perf_counter(), time.process_time())
        self.laps += 1
        if self.laps == WARM_UP:
            self.start = now
        self.end = now
        if self.laps >= WARM_UP + self.min_laps and now[0] - self.start[0] >= self.limit:
            raise Full

    def work(self, per_lap: int) -> Work:
        """Return what was done in the laps that count."""
        wall, processor = (end - start for end, start in zip(self.end, self.start, strict=True))
        return Work((self.laps - WARM_UP) * per_lap, wall, processor)


def available(device: str) -> str:
    """Return the name of a device, for a command line.

    Raises:
        ArgumentTypeError: There is none of this name, or none on this machine.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentTypeError(f"{device} cannot be used here ({reason}): leave it out for the CPU") from None
    return device


def gpu(device: str) -> dict[str, str]:
    """Return the GPU that is measured on, for the record."""
    return {"gpu": torch.cuda.get_device_name()} if torch.device(device).type == "cuda" else {}


def n_parameters(case: Case) -> int:
    """Return the number of trained values of one of the lab's networks."""
    return training.count_parameters(case.config, case.image_shape, N_CLASSES)


def chosen_pack(case: Case, most: int, device: str, cache: int | None = None) -> int:
    """Return the size of pack that the lab chooses for `most` replicas, here or with a cache of so many bytes."""
    network = models.build(case.config, case.image_shape, N_CLASSES)
    return min(most, pack_size(network, torch.device(device), cache=cache))


def images(case: Case, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images and labels."""
    rng = np.random.default_rng(0)
    return rng.random((n, *case.image_shape), dtype=np.float32), rng.integers(0, N_CLASSES, n)


def dataset(case: Case) -> Dataset:
    """Return random images as a data set."""
    pool = Pool(*images(case, case.config.n_train))
    few = Pool(*images(case, N_CLASSES))
    return Dataset("random", tuple("0123456789"), pool, few, few, digest="", source="random")


def lab(case: Case, seconds: float, *, device: str = "cpu", pack: int | None = None) -> Work:
    """Train packs as `fit` does, epochs alone; `pack` replicas in each (None: as the lab chooses for the case)."""
    replicas = max(4, case.replicas if pack is None else pack)
    plan = Replication(scheme="bootstrap", n_resamples=replicas // 2, n_inits=2)
    watch = Stopwatch(seconds, device)
    sizes: list[int] = []  # of the crews, once each of them has done its first epoch and was evaluated

    def on_epoch(state: Callable[[], dict[str, Tensor]]) -> None:
        if sizes:  # epoch follows epoch of the first crew, which never ends
            watch.lap()
        last_state.append(state)

    last_state: list[Callable[[], dict[str, Tensor]]] = []
    try:
        for _ in training.fit(
            case.config, dataset(case), plan, seed=0, n_evaluations=2, device=device, pack_size=pack, on_epoch=on_epoch
        ):
            sizes.extend(len(value) for name, value in last_state[-1]().items() if name.endswith(".places"))
    except Full:
        pass
    return watch.work(N_BATCHES * sizes[0])


def alone(case: Case) -> nn.Module:
    """Return the network as one writes it with torch.nn."""
    channels, height, width = case.image_shape
    layers: list[nn.Module] = []
    if case.family == "mlp":
        n = channels * height * width
        layers.append(nn.Flatten())
        for _ in range(case.depth):
            layers += [nn.Linear(n, case.width), nn.ReLU()]
            n = case.width
        return nn.Sequential(*layers, nn.Linear(n, N_CLASSES))
    if case.family == "cnn":
        n = channels
        for _ in range(case.depth):
            layers += [nn.Conv2d(n, case.width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            n, height, width = case.width, height // 2, width // 2
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(n * height * width, N_CLASSES))
    n = case.width
    layers = [nn.Conv2d(channels, n, 3, padding=1, bias=False), nn.BatchNorm2d(n), nn.ReLU()]
    for stage in range(4):
        for block in range(case.depth):
            n_out = case.width * 2**stage
            layers.append(Block(n, n_out, 2 if stage and not block else 1))
            n = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, N_CLASSES))


class Block(nn.Module):
    """The basic block of He et al. 2016."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out))
        self.stride = stride  # of the shortcut by pooling: see lab.models.convolution
        projection = nn.Sequential(nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out))
        self.shortcut = nn.Identity() if stride == 1 and n_in == n_out else projection

    def forward(self, x: Tensor) -> Tensor:
        fewer = x if self.stride == 1 else F.avg_pool2d(x, 1, self.stride)
        return F.relu(self.second(self.first(x)) + self.shortcut(fewer))


def user(case: Case, seconds: float, *, device: str = "cpu") -> Work:
    """Train one network as a user writes it: DataLoader over a TensorDataset, default Adam."""
    x, y = images(case, case.config.n_train)
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=case.batch, shuffle=True)
    module = alone(case).to(device)
    optimizer = torch.optim.Adam(module.parameters())

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for images_BCHW, labels_B in loader:
            yield images_BCHW.to(device), labels_B.to(device)

    return _loop(module, optimizer, batches, Stopwatch(seconds, device))


def best_loop(case: Case, seconds: float, *, device: str = "cpu", compiled: bool = False) -> Work:
    """Train one network with all that is known to help: tensors on the device, fused Adam, channels last."""
    x, y = (torch.from_numpy(values).to(device) for values in images(case, case.config.n_train))
    module = alone(case).to(device)
    if case.family != "mlp":
        module, x = module.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(module.parameters(), fused=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for index_B in torch.randperm(len(x), device=device).split(case.batch):
            yield x.index_select(0, index_B), y.index_select(0, index_B)

    return _loop(torch.compile(module) if compiled else module, optimizer, batches, Stopwatch(seconds, device))


def _loop(
    module: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]],
    watch: Stopwatch,
) -> Work:
    try:
        while True:
            for images_BCHW, labels_B in batches():
                optimizer.zero_grad()
                F.cross_entropy(module(images_BCHW), labels_B).backward()
                optimizer.step()
            watch.lap()
    except Full:
        return watch.work(N_BATCHES)
