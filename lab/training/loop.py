"""Training: jobs of D resamples × I seeds each, evaluated at chosen epochs. Read it from top to bottom.

Shape suffixes: R = D·I replicas (replica r = d·I + i) of a job, or those of one crew, S some of them, N examples,
C classes, B batch; images are CHW.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab import models
from lab.data.pool import Dataset
from lab.fusion import form_of
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import health, padding
from lab.training.crew import Crew, State, crews_of, part, rows_of
from lab.training.evaluation import Measured, evaluate, evaluation_epochs
from lab.training.job import Job
from lab.training.members import Members, enlist
from lab.training.moment import Moment
from lab.training.precision import arithmetic
from lab.training.scores import Evaluation, Scores
from lab.training.sets import TrainingSets

OnEpoch = Callable[[Callable[..., dict[str, Tensor]]], None]  # a function of the state, see `fit_many`


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
    first_noise: int = 0,
    n_evaluations: int = 20,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    pack_size: int | None = None,
    keep_weights: bool = False,
    resume: State | None = None,
    on_epoch: OnEpoch | None = None,
    on_event: Callable[[str], None] | None = None,
    features_in: Path | None = None,
) -> Iterator[Evaluation]:
    """Train all replicas of a configuration and yield an evaluation at about `n_evaluations` log-spaced epochs.

    Replica r = d·I + i is trained on resample `first_resample + d` from init stream `first_init + i`; with K draws of
    the label noise r = (d·I + i)·K + k, and predictions have the shape (D, I, K, N, C). See `fit_many`, of which this
    is the case of one job.
    """
    job = Job(config, replication, first_resample, first_init, first_noise, keep_weights)
    for (evaluation,) in fit_many(
        [job], dataset, seed=seed, n_evaluations=n_evaluations, device=device, dtype=dtype, pack_size=pack_size,
        resume=resume, on_epoch=on_epoch, on_event=on_event, features_in=features_in,
    ):  # fmt: skip
        yield evaluation


def fit_many(
    jobs: Sequence[Job],
    dataset: Dataset,
    *,
    seed: int,
    n_evaluations: int = 20,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    pack_size: int | None = None,
    resume: State | None = None,
    on_epoch: OnEpoch | None = None,
    on_event: Callable[[str], None] | None = None,
    features_in: Path | None = None,
) -> Iterator[list[Evaluation]]:
    """Train the replicas of jobs of equal form together, and yield an evaluation of each job at the same epochs.

    The result of a replica does not depend on which others are trained with it. With `config.patience`, a replica
    stops when its validation risk has not fallen for that many evaluations, and at the last epoch at the latest; it
    goes back to the weights of its best evaluation, and later evaluations repeat what those predict.

    Args:
        jobs: What is trained; their configurations have one form, see `lab.fusion.form_of`.
        dataset: Where the training sets come from, and the points of validation and test.
        seed: The study seed.
        n_evaluations: How often to evaluate.
        device: Where to train.
        dtype: Of weights and images.
        pack_size: Replicas that are trained together, at the most; None: as many as is fast, see `strategy`.
        resume: A state that `on_epoch` got hold of, of the one job that is given. Training goes on from there, and the
            evaluations that had been yielded by then are not yielded again.
        on_epoch: Called after every epoch of every crew with a function that returns the state of a job (the first,
            or that of a given index) as name → tensor. It holds no copies: write it down before returning.
        on_event: Told in a sentence what happened on the way that a reader of the results may want to know.
        features_in: A folder where trainings leave to each other what frozen trunks of torchvision make of images.

    Raises:
        ValueError: The configurations cannot be built or differ in form, or the scheme needs more examples than there
            are.
        torch.OutOfMemoryError: One replica alone does not fit in the memory that the device has free.
    """
    forms = {form_of(job.config) for job in jobs}
    if len(forms) != 1:
        raise ValueError(f"{len(jobs)} jobs have {len(forms)} shapes: train those of one shape together")
    config, target = jobs[0].config, torch.device(device)
    networks = padding.built([job.config for job in jobs], dataset.image_shape, dataset.n_classes)
    sets, members = enlist(jobs, networks, dataset, seed, target, dtype)
    crews = crews_of(
        padding.widest(networks), members, sets, dataset, seed=seed, device=target, dtype=dtype, pack_size=pack_size,
        resume=resume, on_event=on_event, features_in=features_in,
    )  # fmt: skip
    scores = [Scores(job.shape, keep_weights=job.keep_weights) for job in jobs]
    if resume is not None:
        assert len(jobs) == 1
        scores[0].restore(part(resume, "scores."))
        for k, crew in enumerate(crews):
            crew.restore(part(resume, f"crew{k}."))

    def note() -> None:
        if on_epoch is not None:
            on_epoch(lambda job=0: _state(crews, scores, job))

    epochs = evaluation_epochs(config.epochs, n_evaluations)
    watched = health.watched(epochs)
    for epoch in epochs:
        if epoch <= scores[0].epoch:
            continue
        k = 0
        while k < len(crews):
            with arithmetic(config.precision, target):
                fits = _trained_to(epoch, crews[k], sets, dataset, scores, note, is_watched=epoch in watched)
            if fits:
                k += 1
            else:
                crews[k : k + 1] = _halved(crews[k], on_event)
        crews = [crew for crew in crews if len(crew)]
        yield [of_job.at(epoch, at_end=epoch == config.epochs) for of_job in scores]


def _trained_to(
    epoch: int,
    crew: Crew,
    sets: TrainingSets,
    dataset: Dataset,
    scores: list[Scores],
    note: Callable[[], None],
    *,
    is_watched: bool,
) -> bool:
    """Train a crew up to an epoch and evaluate it there; return False if the device's memory did not suffice."""
    try:
        while crew.epoch < epoch:
            one_epoch(crew, sets, is_watched=is_watched and crew.epoch + 1 == epoch)
            note()
        if crew.evaluated < epoch:
            _evaluate(epoch, crew, sets, dataset, scores)
    except torch.OutOfMemoryError:
        return False  # not handled here: the exception holds on to the tensors of the step
    return True


def one_epoch(crew: Crew, sets: TrainingSets, *, is_watched: bool) -> None:
    """Take every replica of a crew once through its training set; the signals of the last step are kept if watched."""
    crew.begin_epoch()
    step = functools.partial(_one_step, crew, sets)
    crew.signals = {}
    if is_watched:
        for k in range(crew.n_batches - 1):
            step(Moment(k))
        last = Moment(crew.n_batches - 1)
        _differentiate(crew, sets, last)
        before_RP = crew.pack.theta_RP.clone()  # now, as the activations of the step are gone
        _update(crew, last)
        known = None if crew.known is None else crew.known.of(slice(None), slice(health.N_EXAMPLES))
        images = sets.first(health.N_EXAMPLES, crew.sets_R) if known is None else None
        crew.signals = health.measure(crew.pack, before_RP, images, known, crew.members.networks_R)
    elif crew.graphs is not None:
        crew.graphs.epoch(crew.n_batches, step)
    else:
        for k in range(crew.n_batches):
            step(Moment(k))
    crew.epoch += 1


def _one_step(crew: Crew, sets: TrainingSets, moment: Moment) -> None:
    """Update every replica once, on its own batch. On a GPU all of it may be captured: it must not ask the host."""
    _differentiate(crew, sets, moment)
    _update(crew, moment)


def _differentiate(crew: Crew, sets: TrainingSets, moment: Moment) -> None:
    """Compute the gradient of every replica's loss on its own batch."""
    pack, index_RB = crew.pack, crew.batches.at(moment)
    crew.dropout.moment = moment
    known = crew.known_batch(moment)
    if known is None:
        images_RBCHW, targets = sets.batch(index_RB)  # labels (R, B); distributions (R, B, C) once mixed
        if not crew.augmentation.is_off:
            black_R1C11 = sets.black(crew.sets_R)
            images_RBCHW, targets = crew.augmentation(moment, images_RBCHW, targets, black_R1C11, sets.n_classes)
        if crew.attack is not None:
            images_RBCHW = crew.attack(pack, images_RBCHW, targets)
        x = pack.network.features(pack.weights, images_RBCHW)
    else:
        x, targets = pack.network.enter(known), sets.labels_at(index_RB)
    gradient_of = functools.partial(crew.criterion.gradient, targets=targets)
    if pack.network.is_by_hand:
        pack.differentiate_by_hand(x, gradient_of, crew.dropout.factors)
    else:
        logits_RBC = pack.network.onward(x, pack.weights, pack.buffers, crew.dropout)
        pack.differentiate(logits_RBC, gradient_of(logits_RBC))


def _update(crew: Crew, moment: Moment) -> None:
    """Update the weights by their gradients, with all that the optimiser and its surroundings do to them."""
    pack = crew.pack
    if crew.l1_R1 is not None:
        pack.penalise(crew.l1_R1)
    if crew.largest_R1 is not None:
        pack.clip(crew.largest_R1)
    crew.optimizer.step(moment)
    if crew.averaging is not None:
        crew.averaging.update(pack.theta_RP, moment)


def _evaluate(epoch: int, crew: Crew, sets: TrainingSets, dataset: Dataset, scores: list[Scores]) -> None:
    """Measure a crew, and let those leave that have diverged or stopped; the latter are measured at their best."""
    at_end, pack = epoch == crew.config.epochs, crew.shown()
    attacks, corrupted = (crew.test_attacks(), crew.corrupted(dataset.test)) if at_end else ({}, {})
    keep_weights = any(of_job.keeps_weights for of_job in scores)
    measured = evaluate(
        pack, crew.sets_R, sets, dataset, attacks=attacks, corrupted=corrupted, signals=crew.signals,
        keep_weights=keep_weights and at_end, features=crew.features,
    )  # fmt: skip
    diverged_R, risk_R = _record(crew.members, measured, scores)
    leaves_R = diverged_R
    if crew.stopping is not None:
        stops_R = crew.stopping.update(pack, risk_R, diverged_R, at_end=at_end)
        rows = np.flatnonzero(stops_R)
        if len(rows):
            rows_S = torch.from_numpy(rows).to(crew.sets_R.device)
            best, attacks = crew.stopping.best(rows_S), crew.test_attacks(rows_S)
            corrupted = crew.corrupted(dataset.test)
            features = None if crew.features is None else crew.features.take(rows_S)
            measured = evaluate(
                best, crew.sets_R[rows_S], sets, dataset, attacks=attacks, corrupted=corrupted,
                keep_weights=keep_weights, features=features,
            )  # fmt: skip
            _record(crew.members.take(rows), measured, scores)
        leaves_R = leaves_R | stops_R
    if leaves_R.any():
        crew.keep(~leaves_R)
    crew.evaluated = epoch
    crew.save()


def _record(members: Members, measured: Measured, scores: list[Scores]) -> tuple[np.ndarray, np.ndarray]:
    """Hand every job what was measured of its replicas; return which have diverged, and the validation risks."""
    diverged_R, risk_R = np.zeros(len(members), dtype=bool), np.full(len(members), np.nan)
    for j in np.unique(members.jobs_R):
        rows = np.flatnonzero(members.jobs_R == j)
        places = members.places_R[rows]
        of_job = measured.take(rows)
        own = padding.corners(of_job.weights, members.networks[j])
        scores[j].record(places, of_job._replace(weights=own))
        diverged_R[rows], risk_R[rows] = scores[j].diverged_R[places], scores[j].metrics["val_risk"][places]
    return diverged_R, risk_R


def _halved(crew: Crew, on_event: Callable[[str], None] | None) -> list[Crew]:
    """Return the crew in two halves, with its memory released; the batches of a replica stay as they are."""
    device, n_replicas = crew.sets_R.device, len(crew)
    if n_replicas == 1:  # no ValueError: elsewhere, or later, there may be room for this configuration
        raise torch.OutOfMemoryError(
            f"one replica does not fit in the memory of {device}: lower width, depth or batch_size"
        )
    if on_event is not None:
        on_event(f"{n_replicas} replicas did not fit in the memory of {device} together: their pack was halved")
    return crew.halves()


def _state(crews: list[Crew], scores: list[Scores], job: int) -> dict[str, Tensor]:
    """Return what the training of a job goes on from, see `fit_many`."""
    state = {f"scores.{name}": value for name, value in scores[job].state().items()}
    of_job = [(crew, np.flatnonzero(crew.members.jobs_R == job)) for crew in crews]
    for k, (crew, rows) in enumerate((crew, rows) for crew, rows in of_job if len(rows)):
        own = crew.state() if len(rows) == len(crew) else rows_of(crew.state(), torch.from_numpy(rows))
        network, wide = crew.members.networks[job], crew.pack.network
        own = own if network is wide else padding.narrowed(own, network, wide)
        state |= {f"crew{k}.{name}": value for name, value in own.items()}
    return state
