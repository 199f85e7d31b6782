"""How many replicas share a pack: the rule beside what was measured, and beside the memory of a GPU."""

import contextlib
import json

import pytest
import torch

from benchmarks import records
from benchmarks.loops import N_CLASSES, chosen_pack
from benchmarks.strategy import GRID
from lab import models
from lab.knobs import TrialConfig
from lab.training import features, graphs, strategy

TABLE = records.FOLDER / "strategy.json"
CUDA = torch.device("cuda")
GIB = 2**30


def network(**knobs):
    return models.build(TrialConfig(**knobs), (1, 28, 28), N_CLASSES)


# -- the table that the rule is made from


@pytest.mark.skipif(not TABLE.exists(), reason="python -m benchmarks.strategy makes the table")
@pytest.mark.parametrize("case", GRID, ids=lambda case: case.name)
def test_the_rule_costs_a_tenth_more_than_the_best_that_was_measured_at_the_most(case):
    """Loops over single networks and all sizes of pack; the table is benchmarks/strategy.md."""
    content = json.loads(TABLE.read_text())
    rows = {row["case"]: row for table in content["tables"].values() for row in table}
    cache = content["machine"]["cache_bytes"]
    columns = {name: value for name, value in rows[case.name].items() if name.startswith(("loop", "pack"))}
    chosen = chosen_pack(case, max(int(name.removeprefix("pack ")) for name in columns if name != "loop"), "cpu", cache)
    times = {name: value for name, value in columns.items() if value is not None}
    assert times[f"pack {chosen}"] <= 1.1 * min(times.values())


@pytest.mark.parametrize(("content", "size"), [("2048K\n", 2**21), ("0K", 2**19), ("", 2**19), (None, 2**19)])
def test_the_cache_of_a_core_is_read_where_it_stands(tmp_path, monkeypatch, content, size):
    if content is not None:
        (tmp_path / "size").write_text(content)
    monkeypatch.setattr(strategy, "CACHE_FILE", tmp_path / "size")
    assert strategy.cache_bytes.__wrapped__() == size


def test_packs_grow_with_the_cache():
    def sizes(**knobs):
        return [strategy.pack_size(network(**knobs), torch.device("cpu"), cache=cache) for cache in (2**19, 2**21)]

    assert sizes(family="cnn", width=8, batch_size=64, norm="batch") == [2, 8]
    assert sizes(family="cnn", width=8, batch_size=64) == [4, 16]  # whose maps are computed in pieces
    assert sizes(family="mlp", width=64, depth=2) == [8, 32]


# -- a GPU's memory, with an allocator that says what it has


def test_on_a_gpu_a_pack_is_as_large_as_free_memory_has_room_for():
    net = network(family="cnn", width=32, batch_size=64)
    sizes = [strategy.pack_size(net, CUDA, lambda _, free=free: free) for free in (GIB, 2 * GIB, 8 * GIB)]
    for size, free in zip(sizes, (GIB, 2 * GIB, 8 * GIB), strict=True):
        assert size * strategy.replica_bytes(net) <= strategy.SHARE * free < (size + 1) * strategy.replica_bytes(net)
    assert sizes[0] < sizes[1] < sizes[2]
    assert strategy.pack_size(net, CUDA, lambda _: 1000) == 1


@pytest.mark.parametrize("larger", [{"width": 64}, {"batch_size": 128}, {"depth": 3}])
def test_larger_networks_and_batches_are_estimated_larger(larger):
    knobs = {"family": "resnet", "width": 16, "depth": 2, "batch_size": 32}
    assert strategy.replica_bytes(network(**knobs | larger)) > strategy.replica_bytes(network(**knobs))


def test_the_estimate_is_above_weights_gradient_and_moments_and_what_layers_keep():
    net = network(family="mlp", width=100, depth=2, batch_size=8)
    state = 4 * net.n_parameters
    kept = 8 * (784 + 2 * 100 + 2 * 100 + 10)  # the input, both sides of two activations, the logits
    assert strategy.replica_bytes(net) > 4 * (state + kept)


FEATURES = 1000  # bytes


def test_features_and_frozen_weights_are_counted():
    whole, frozen = (network(family="cnn", width=32, batch_size=64, frozen=share) for share in (0.0, 1.0))
    known, unknown = strategy.replica_bytes(frozen, FEATURES), strategy.replica_bytes(frozen)
    head = 4 * (strategy.STATES * frozen.n_parameters + 2 * frozen.trained[0].shape[0] * 64)
    assert known == head + 4 * (whole.n_parameters - frozen.n_parameters) + FEATURES
    assert known < unknown < strategy.replica_bytes(whole)
    free = 10 * known
    assert strategy.pack_size(frozen, CUDA, lambda _: free, known=FEATURES) == int(strategy.SHARE * 10)


@pytest.mark.parametrize("family", ["mlp", "cnn", "resnet", "pretrained"])
def test_heads_that_are_trained_on_features_share_a_pack_as_perceptrons_do(family):
    heads = network(family=family, frozen=1.0)
    n_features = features.n_values(heads, (1, 28, 28))
    most = strategy.PACK_WEIGHTS * strategy.cache_bytes() // heads.n_parameters
    assert n_features == heads.trained[0].shape[0]
    assert most / 2 < strategy.pack_size(heads, torch.device("cpu"), known=4 * n_features) <= most


@pytest.mark.parametrize("change", [{"flip": 0.5}, {"adversarial": "fgsm"}])
def test_heads_whose_images_change_go_through_all_blocks_and_share_a_pack_as_those_do(change):
    still, changing = (network(family="cnn", width=32, frozen=1.0, **knobs) for knobs in ({}, change))
    sizes = [100, 50, 50]
    assert features.n_bytes(still, (1, 28, 28), sizes) == 4 * 200 * still.trained[0].shape[0]
    assert features.n_bytes(changing, (1, 28, 28), sizes) is None
    whole = strategy.pack_size(network(family="cnn", width=32), torch.device("cpu"))
    assert strategy.pack_size(changing, torch.device("cpu")) == whole
    assert strategy.pack_size(network(family="pretrained", frozen=1.0, **change), torch.device("cpu")) == 1


def test_too_many_training_features_are_not_kept_and_of_other_images_only_those_that_are_not_too_many():
    heads = network(family="cnn", width=32, frozen=1.0)
    most = features.MOST_VALUES // heads.trained[0].shape[0]
    assert features.n_bytes(heads, (1, 28, 28), [most + 1, 10]) is None
    assert features.n_bytes(heads, (1, 28, 28), [10, most + 1, 10]) == 4 * 20 * heads.trained[0].shape[0]


# -- graphs


class Graph:
    def pool(self):
        return "pool"

    def replay(self):
        Graph.replayed += 1


def test_memory_that_runs_out_in_a_capture_is_told_as_memory_that_ran_out(monkeypatch):
    pools = []

    @contextlib.contextmanager
    def capturing(graph, pool=None):
        pools.append(pool)
        try:
            yield
        except torch.OutOfMemoryError:
            raise RuntimeError("operation failed due to a previous error during capture") from None

    for name, stand_in in {
        "CUDAGraph": Graph, "graph": capturing, "device": lambda _: contextlib.nullcontext(),
        "synchronize": lambda: None, "empty_cache": lambda: None,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    capture, ran = graphs.Capture(CUDA), []
    replay = capture(lambda: ran.append(1))
    Graph.replayed = 0
    replay()
    assert (len(ran), Graph.replayed) == (1, 1)

    def too_large():
        raise torch.OutOfMemoryError

    def broken():
        raise ValueError("else")

    with pytest.raises(torch.OutOfMemoryError):
        capture(too_large)
    with pytest.raises(ValueError, match="else"):
        capture(broken)
    assert pools == [None, "pool", "pool"]  # graphs of a crew share their memory
