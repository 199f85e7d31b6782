"""Training: one configuration, D resamples × I seeds, evaluated at chosen epochs. Read it from top to bottom.

Shape suffixes: R = D·I replicas (replica r = d·I + i) of a trial, or those of one crew, S some of them, N examples,
C classes, B batch; images are CHW.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from lab import models
from lab.data.datasets import Dataset
from lab.data.resampling import training_sets
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import health
from lab.training.crew import Crew, State, part
from lab.training.evaluation import evaluate, evaluation_epochs
from lab.training.scores import Evaluation, Scores
from lab.training.sets import TrainingSets


def count_parameters(config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> int:
    """Return the number of trained values of one network of this configuration."""
    return models.build(config, image_shape, n_classes).n_parameters


def fit(
    config: TrialConfig,
    dataset: Dataset,
    replication: Replication,
    *,
    seed: int,
    first_resample: int = 0,
    first_init: int = 0,
    n_evaluations: int = 20,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    pack_size: int | None = None,
    resume: State | None = None,
    on_epoch: Callable[[Callable[[], dict[str, Tensor]]], None] | None = None,
) -> Iterator[Evaluation]:
    """Train all replicas of a configuration and yield an evaluation at about `n_evaluations` log-spaced epochs.

    Replica r = d·I + i is trained on resample `first_resample + d` from init stream `first_init + i`. Its result does
    not depend on which other replicas are trained with it. With `config.patience`, a replica stops when its
    validation risk has not fallen for that many evaluations, and at the last epoch at the latest; it goes back to the
    weights of its best evaluation, and later evaluations repeat what those predict.

    Args:
        config: What is trained.
        dataset: Where the training sets come from, and the points of validation and test.
        replication: How many replicas, and how they differ.
        seed: The study seed.
        first_resample: The resample of replica 0.
        first_init: The init stream of replica 0.
        n_evaluations: How often to evaluate.
        device: Where to train.
        dtype: Of weights and images.
        pack_size: Replicas that are trained together, at the most; None: all.
        resume: A state that `on_epoch` got hold of. Training goes on from there, and the evaluations that had been
            yielded by then are not yielded again.
        on_epoch: Called after every epoch of every crew with a function that returns the state of the training, as
            name → tensor. It holds no copies: write it down before returning.

    Raises:
        ValueError: The configuration cannot be built, or the scheme needs more examples than there are.
    """
    D, I = replication.n_resamples, replication.n_inits  # noqa: E741 - the letters of the shape legend
    target = torch.device(device)
    pools = training_sets(config, dataset, replication, seed=seed, first_resample=first_resample)
    sets = TrainingSets(pools, dataset.n_classes, device=target, dtype=dtype)
    network = models.build(config, dataset.image_shape, dataset.n_classes)
    n_crews = -(-D * I // (pack_size or D * I))
    crews = [
        Crew(
            network, [config] * len(places_R), places_R, first_init + places_R % I, places_R // I, sets,
            seed=seed, device=target, dtype=dtype,
        )
        for places_R in np.array_split(np.arange(D * I), n_crews)
    ]  # fmt: skip
    scores = Scores(D, I)
    if resume is not None:
        _restore(resume, crews, scores)

    epochs = evaluation_epochs(config.epochs, n_evaluations)
    watched = health.watched(epochs)
    for epoch in epochs:
        if epoch <= scores.epoch:
            continue
        for crew in crews:
            while crew.epoch < epoch and len(crew):
                _one_epoch(crew, sets, is_watched=crew.epoch + 1 == epoch and epoch in watched)
                if on_epoch is not None:
                    on_epoch(lambda: _state(crews, scores))
            if crew.evaluated < epoch and len(crew):
                _evaluate(epoch, crew, sets, dataset, scores)
        yield scores.at(epoch)


def _one_epoch(crew: Crew, sets: TrainingSets, *, is_watched: bool) -> None:
    """Take every replica of a crew once through its training set; the signals of the last step are kept if watched."""
    order_RN = sets.positions(crew.orders(crew.epoch + 1), crew.sets_R)
    *batches, last_RB = order_RN.split(crew.config.batch_size, dim=1)
    for index_RB in batches:
        _one_step(crew, *_batch(crew, sets, index_RB))
    before_RP = crew.pack.theta_RP.clone() if is_watched else None
    _one_step(crew, *_batch(crew, sets, last_RB))
    crew.epoch += 1
    crew.signals = {}
    if before_RP is not None:
        crew.signals = health.measure(crew.pack, before_RP, sets.first(health.N_EXAMPLES, crew.sets_R))


def _batch(crew: Crew, sets: TrainingSets, index_RB: Tensor) -> tuple[Tensor, Tensor]:
    """Return images and targets as they are trained on: augmented, and mixed targets (R, B, C) instead of labels."""
    images_RBCHW, labels_RB = sets.batch(index_RB)
    if crew.augmentation.is_off:
        return images_RBCHW, labels_RB
    return crew.augmentation(crew.step, images_RBCHW, labels_RB, sets.black(crew.sets_R), sets.n_classes)


def _one_step(crew: Crew, images_RBCHW: Tensor, targets: Tensor) -> None:
    """Update every replica once, on its own batch; targets are labels (R, B) or distributions (R, B, C)."""
    pack = crew.pack
    crew.dropout.step = crew.step
    if crew.attack is not None:
        images_RBCHW = crew.attack(pack, images_RBCHW, targets)
    logits_RBC = pack.network.forward(pack.weights, pack.buffers, images_RBCHW, crew.dropout)
    pack.differentiate(crew.criterion(logits_RBC, targets))
    if crew.l1_R1 is not None:
        pack.penalise(crew.l1_R1)
    if crew.largest_R1 is not None:
        pack.clip(crew.largest_R1)
    crew.optimizer.step(crew.step)
    crew.step += 1
    if crew.averaging is not None:
        crew.averaging.update(pack.theta_RP, crew.step)


def _evaluate(epoch: int, crew: Crew, sets: TrainingSets, dataset: Dataset, scores: Scores) -> None:
    """Measure a crew, and let those leave that have diverged or stopped; the latter are measured at their best."""
    at_end, pack = epoch == crew.config.epochs, crew.shown(sets)
    attack = crew.test_attack(sets) if at_end else None
    scores.record(crew.places_R, evaluate(pack, crew.sets_R, sets, dataset, attack=attack, signals=crew.signals))
    leaves_R = scores.diverged_R[crew.places_R]
    if crew.stopping is not None:
        risk_R = scores.metrics["val_risk"][crew.places_R]
        stops_R = crew.stopping.update(pack, risk_R, leaves_R, at_end=at_end)
        if stops_R.any():
            rows_S = torch.from_numpy(np.flatnonzero(stops_R)).to(crew.sets_R.device)
            best, attack = crew.stopping.best(rows_S), crew.test_attack(sets, rows_S)
            scores.record(crew.places_R[stops_R], evaluate(best, crew.sets_R[rows_S], sets, dataset, attack=attack))
        leaves_R = leaves_R | stops_R
    if leaves_R.any():
        crew.keep(~leaves_R)
    crew.evaluated = epoch


def _state(crews: list[Crew], scores: Scores) -> dict[str, Tensor]:
    """Return what training goes on from, see `fit`."""
    state = {f"scores.{name}": value for name, value in scores.state().items()}
    for k, crew in enumerate(crews):
        state |= {f"crew{k}.{name}": value for name, value in crew.state().items()}
    return state


def _restore(state: State, crews: list[Crew], scores: Scores) -> None:
    scores.restore(part(state, "scores."))
    for k, crew in enumerate(crews):
        crew.restore(part(state, f"crew{k}."))
