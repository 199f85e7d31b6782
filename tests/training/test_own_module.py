"""A module of the user's own, stacked or one by one, is trained as each of its copies would be alone by torch.optim."""

import dataclasses
import itertools

import numpy as np
import pytest
import techniques
import torch
from torch import nn

from lab import models, seeds, training
from lab.data.datasets import load
from lab.data.resampling import draw_resample
from lab.knobs import TrialConfig
from lab.models.own import Own
from lab.spec import Replication
from lab.training import strategy
from lab.training.dropout import LEVELS, Dropout

CONFIG = TrialConfig(family="net", width=5, epochs=3, n_train=21, batch_size=8, learning_rate=0.01, dropout=0.25)
PLAN = Replication(scheme="bootstrap", n_resamples=2, n_inits=2)
SHAPE = (1, 8, 8)


class Net(nn.Module):
    """Layers that the lab knows and such that it does not; batch norm, two kinds of dropout, a parameter of its own."""

    def __init__(self, config, n_classes, dropout=nn.Dropout, dropout2d=nn.Dropout2d):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, config.width, 3, padding=1), nn.BatchNorm2d(config.width), nn.Tanh())
        self.spread = dropout2d(config.dropout)
        self.frozen = nn.Parameter(torch.randn(config.width, 1, 1), requires_grad=False)
        self.hidden = nn.LazyLinear(6)
        self.drop = dropout(0.5)
        self.out = nn.Linear(6, n_classes)
        self.temperature = nn.Parameter(torch.rand(()) + 1)

    def forward(self, x):
        x = self.spread(nn.functional.avg_pool2d(self.first(x) * self.frozen, 2))
        x = torch.relu(self.hidden(x.flatten(1)))
        return self.out(self.drop(x)) * self.temperature


class Deciding(Net):
    """The same function, written so that it cannot be stacked: Python asks for the value of a tensor."""

    def forward(self, x):
        return super().forward(x) if x.sum() > -1e9 else x


def net(config, n_classes):
    return Net(config, n_classes)


def deciding(config, n_classes):
    return Deciding(config, n_classes)


@pytest.fixture(autouse=True)
def registered():
    models.register("net", net)
    models.register("deciding", deciding)


@pytest.fixture(scope="module")
def digits():
    return load("digits", seed=0, n_test=40, n_validation=20)


def last(config, digits, plan=PLAN, **options):
    *_, evaluation = training.fit(config, digits, plan, seed=3, n_evaluations=2, **options)
    return evaluation


class Mask(nn.Module):
    """What dropout does to the replica of one init stream, layer by layer."""

    def __init__(self, net, layer, rate, n_whole):
        super().__init__()
        self.owner, self.layer, self.rate, self.n_whole = [net], layer, rate, n_whole  # a list hides it from torch

    def forward(self, x):
        if not self.training or not self.owner[0].rate:
            return x
        shape = (*x.shape[: self.n_whole], *[1] * (x.dim() - self.n_whole))
        kept = self.owner[0].masks.kept(self.layer, int(np.prod(shape)), round(self.rate * LEVELS))[0]
        return x * kept.view(shape) / (1 - self.rate)


def train_alone(config, dataset, resample, init):
    pool = draw_resample(
        dataset, "bootstrap", n_train=config.n_train, n_blocks=2, seed=3, index=resample
    )  # as in reference.py
    mean, std = (
        np.float32(statistic(axis=(0, 2, 3), keepdims=True, dtype=np.float64))
        for statistic in (pool.images.mean, pool.images.std)
    )
    x = torch.from_numpy((pool.images.astype(np.float64) - mean) / std)
    y = torch.from_numpy(pool.labels)
    network = models.build(config, dataset.image_shape, dataset.n_classes)
    module = Net(config, dataset.n_classes)
    module.eval()(torch.zeros(2, *SHAPE))
    module = module.double()
    values, buffers = network.initial(config.init_scheme, config.init_gain, seeds.generator(3, "init", init))
    flat = torch.from_numpy(values)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.copy_(flat[: parameter.numel()].view(parameter.shape))
                flat = flat[parameter.numel() :]
        module.frozen.copy_(buffers["frozen"])
    assert not len(flat)
    module.rate, module.masks = 1.0, Dropout([0.0], [init], seed=3, device=torch.device("cpu"))
    module.spread, module.drop = Mask(module, 0, config.dropout, 2), Mask(module, 1, 0.5, 2)
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=config.learning_rate, fused=False, foreach=False)
    average = techniques.Average(config, module, -(-config.n_train // config.batch_size))
    steps = itertools.count()
    module.train()
    for epoch in range(1, config.epochs + 1):
        order = torch.from_numpy(seeds.generator(3, "order", init, epoch).permutation(config.n_train))
        for batch in order.split(config.batch_size):
            module.masks.begin(next(steps), 1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()
            average.update(module)
    if config.averaging != "none":
        module = average.finished(x.split(config.batch_size))
    module.eval()
    with torch.no_grad():
        test = torch.from_numpy((dataset.test.images.astype(np.float64) - mean) / std)
        return torch.softmax(module(test), dim=-1).numpy()


@pytest.mark.parametrize(
    "change",
    [{}, {"family": "deciding"}, {"init_scheme": "own", "init_gain": 2.0}, {"averaging": "swa", "epochs": 5}],
    ids=lambda change: ",".join(f"{k}={v}" for k, v in change.items()) or "stacked",
)
def test_a_replica_of_a_users_module_equals_the_same_replica_trained_alone(digits, change):
    config = dataclasses.replace(CONFIG, **change)
    evaluation = last(config, digits, dtype=torch.float64)
    for d, i in itertools.product(range(2), range(2)):
        # predictions are stored in float32: 6e-8 is half a unit in the last place of 1.0
        np.testing.assert_allclose(
            evaluation.probabilities_test_DINC[d, i], train_alone(config, digits, d, i), rtol=2e-6, atol=1e-7
        )


@pytest.mark.parametrize("family", ["net", "deciding"])
@pytest.mark.parametrize("pack_size", [1, 3, 4])
def test_how_packs_are_cut_does_not_change_a_users_module(digits, family, pack_size):
    config = dataclasses.replace(CONFIG, family=family, optimizer="sgd")
    whole, cut = (last(config, digits, dtype=torch.float64, pack_size=n) for n in (4, pack_size))
    np.testing.assert_allclose(whole.probabilities_test_DINC, cut.probabilities_test_DINC, rtol=1e-6, atol=1e-7)


def test_a_module_that_cannot_be_stacked_is_trained_one_by_one_and_says_why(digits):
    events = []
    config = dataclasses.replace(CONFIG, family="deciding", epochs=1)
    last(config, digits, on_event=events.append)
    [event] = events
    assert event.startswith("family deciding: its replicas are trained one after the other, because vmap")
    network = models.build(config, SHAPE, 10)
    assert network.why_alone is not None
    assert strategy.pack_size(network, torch.device("cpu")) == 1


def test_a_module_that_can_be_stacked_runs_as_one_program():
    network = models.build(CONFIG, SHAPE, 10)
    assert network.why_alone is None
    calls = []
    network._module.register_forward_pre_hook(lambda *_: calls.append(1))
    values, buffers = network.initial("own", 1.0, np.random.default_rng(0))
    weights = torch.split(torch.from_numpy(values).float(), [int(np.prod(p.shape)) for p in network.parameters])
    state = {p.name: w.view(1, *p.shape).repeat_interleave(7, 0) for p, w in zip(network.parameters, weights)}  # noqa: B905
    buffers = {name: value[None].repeat_interleave(7, 0) for name, value in buffers.items()}
    assert network.forward(state, buffers, torch.zeros(7, 3, *SHAPE), None).shape == (7, 3, 10)
    assert len(calls) == 1


# -- initial weights


def start(scheme, gain, seed=0):
    network = models.build(dataclasses.replace(CONFIG, width=64), SHAPE, 10)
    values, buffers = network.initial(scheme, gain, np.random.default_rng(seed))
    parts = np.split(values, np.cumsum([int(np.prod(p.shape)) for p in network.parameters])[:-1])
    return {p.name: part.reshape(p.shape) for p, part in zip(network.parameters, parts, strict=True)} | buffers


def test_a_scheme_draws_the_layers_that_it_knows_and_leaves_the_rest_to_the_module():
    weights = start("he_normal", 1.0)
    assert weights["hidden.weight"].std() == pytest.approx((2 / (64 * 16)) ** 0.5, rel=0.03)
    assert not weights["hidden.bias"].any()
    assert 1 <= weights["temperature"] <= 2
    assert weights["first.1.weight"].tolist() == [1.0] * 64


def test_an_orthogonal_start_is_orthogonal_in_the_layout_of_torch():
    weights = start("orthogonal", 3.0)
    for name in ("hidden.weight", "first.0.weight", "out.weight"):
        flat = weights[name].reshape(len(weights[name]), -1) / 3
        gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)


def test_own_keeps_what_the_module_draws_times_the_gain():
    plain, twice = start("own", 1.0), start("own", 2.0)
    bound = (64 * 16) ** -0.5  # torch.nn.Linear's
    assert np.abs(plain["hidden.weight"]).max() == pytest.approx(bound, rel=0.01)
    np.testing.assert_allclose(twice["hidden.weight"], 2 * plain["hidden.weight"])
    np.testing.assert_array_equal(twice["hidden.bias"], plain["hidden.bias"])


def test_init_streams_differ_in_all_that_a_module_draws_and_torchs_stream_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = start("own", 1.0, 1), start("own", 1.0, 1), start("own", 1.0, 2)
    assert torch.equal(torch.rand(3), expected)
    for name in ("hidden.weight", "temperature", "frozen"):
        np.testing.assert_array_equal(first[name], again[name])
        assert (np.asarray(first[name]) != np.asarray(other[name])).all()


def test_a_scheme_of_modules_is_no_scheme_of_the_labs_families():
    with pytest.raises(ValueError, match="init_scheme 'own' keeps what a module of the study file gives itself"):
        models.build(TrialConfig(), SHAPE, 10).initial("own", 1.0, np.random.default_rng(0))


# -- what is refused


class Bad(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what, self.out = what, nn.Linear(64, 9 if what == "classes" else 10)
        if what == "unused":
            self.spare = nn.Linear(2, 3)
        if what == "rate":
            self.drop = nn.Dropout(1.0)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        if self.what == "broken":
            return self.out(x)
        if self.what == "random":
            x = nn.functional.dropout(x, 0.5, self.training)
        if self.what == "buffer":
            self.count = self.count + 1
        logits = self.out(x.flatten(1))
        return (logits, x) if self.what == "tuple" else logits


def frozen():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).requires_grad_(False)


REFUSED = {
    "classes": "the module returns (2, 9): return logits (2, 10)",
    "tuple": "the module returns tuple: return logits (2, 10)",
    "random": "its forward draws random numbers",
    "broken": "its forward fails on images (2, 1, 8, 8): RuntimeError: mat1 and mat2",
    "buffer": "its forward replaces the buffer count: change it in place",
    "unused": "the logits do not depend on spare.weight, spare.bias: leave it out",
    "rate": "nn.Dropout(1.0) drops everything",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_module_that_cannot_be_trained_is_refused_in_a_line_that_says_why(what):
    with pytest.raises(ValueError, match="family 'bad'") as refusal:
        Own("bad", lambda: Bad(what), CONFIG, SHAPE, 10)
    assert REFUSED[what] in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: 3, "the function returned int: return a torch.nn.Module"),
        (frozen, "no parameter that requires a gradient"),
        (
            lambda config: nn.Linear(config.widht, 10),
            "building the module: AttributeError: 'TrialConfig' object has no",
        ),
    ],
)
def test_a_function_that_builds_no_module_is_refused(build, says):
    with pytest.raises(ValueError, match="family 'bad'") as refusal:
        Own("bad", build, CONFIG, SHAPE, 10)
    assert says in str(refusal.value)


def test_the_name_of_a_family_of_the_lab_cannot_be_taken():
    with pytest.raises(ValueError, match="family 'cnn' is one of the lab's own"):
        models.register("cnn", net)
