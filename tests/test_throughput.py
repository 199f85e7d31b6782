"""The speed benchmarks run in their smallest size; what is checked is the form of what they write, never a time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import loops, padding, strategy, throughput, ways, whole_study
from benchmarks.loops import Case
from lab import models
from lab.training.losses import cross_entropy_gradient
from lab.training.pack import Pack

CASES = [Case("mlp", 2, 3, (1, 8, 8), 4, 4), Case("cnn", 2, 3, (2, 8, 8), 4, 4), Case("resnet", 1, 2, (3, 8, 8), 4, 4)]


@pytest.mark.slow
def test_throughput_says_how_many_replica_steps_a_second_each_way_does(tmp_path):
    assert throughput.main(["--quick"], tmp_path) == 0
    content = json.loads((tmp_path / "throughput.json").read_text())
    rows = [row for table in content["tables"].values() for row in table]
    assert [row["R"] for row in rows] == [4, 4]
    for row in rows:
        rates = [row[f"{name}, steps/s"] for name in ("user", "loop", "lab")]
        assert min(rates) > 0
        # one round: the median of the ratios is the ratio of the medians
        assert row["lab / user"] == pytest.approx(rates[2] / rates[0])
        assert row["lab / loop"] == pytest.approx(rates[2] / rates[1])
    assert content["machine"]["torch"]


# as sitecustomize.py: hides all that is installed beside torch, numpy and what they need
BARE = """
import importlib.metadata
from importlib.machinery import PathFinder
SHOWN = {"torch", "numpy", "triton", "cuda", "torchgen", "functorch", "typing_extensions", "sympy", "mpmath"}
HIDDEN = set(importlib.metadata.packages_distributions()) - SHOWN - {"lab", "benchmarks"}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in HIDDEN else find(name, *rest)
"""


@pytest.mark.slow
def test_a_gpu_run_needs_torch_and_what_torch_needs_alone(tmp_path):
    """All other packages are hidden, from the processes that are started too."""
    (tmp_path / "sitecustomize.py").write_text(BARE)
    root = str(Path(__file__).parents[1])
    code = (
        "import sys; from pathlib import Path; from benchmarks import throughput\n"
        "try:\n    import sklearn\nexcept ModuleNotFoundError:\n    print('hidden')\n"
        "case = throughput.Case('resnet', 1, 2, (3, 8, 8), 4, 4)\n"
        "print(sorted(throughput.on_gpu('cpu', case, 0.01, False)))\n"
        "sys.exit(throughput.main(['--quick'], Path(sys.argv[1])))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), root])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hidden\n['lab', 'loop', 'user']\n")
    assert (tmp_path / "throughput.json").exists()


@pytest.mark.parametrize("benchmark", [throughput, strategy])
def test_a_device_that_is_not_there_is_one_line(benchmark, capsys, tmp_path):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["--device", "cuda:99"], tmp_path)
    assert stop.value.code == 2
    assert "cuda:99 cannot be used here" in capsys.readouterr().err.splitlines()[-1]


def test_the_table_of_pack_sizes_has_a_row_a_case(tmp_path):
    threads = torch.get_num_threads()
    try:
        assert strategy.main(["--quick", "--minutes", "0", "--seconds", "0.01"], tmp_path) == 0
    finally:
        torch.set_num_threads(threads)
    for rows in json.loads((tmp_path / "strategy.json").read_text())["tables"].values():
        for row in rows:
            columns = [value for name, value in row.items() if name == "loop" or name.startswith("pack ")]
            times = [value for value in columns if value is not None]
            assert row["loss"] == pytest.approx(row[f"pack {row['chosen']}"] / min(times) - 1, abs=1e-3)


@pytest.mark.slow
def test_the_ways_that_were_tried_stand_in_one_table_with_their_floors(tmp_path):
    assert ways.main(["--quick", "--seconds", "0.01"], tmp_path) == 0
    tables = json.loads((tmp_path / "ways.json").read_text())["tables"]
    *times, arithmetic, memory = [value for row in tables["Ways"] for name, value in row.items() if name != "way"]
    assert len(times) == 3
    assert 0 < arithmetic < min(times)
    assert memory > 0
    (target,) = tables["Targets"]
    assert min(target["reached"], target["allowed"]) > 0
    assert target["allowed"] / target["reached"] == pytest.approx(
        target["lab, ms"] / (target["products, ms"] + target["optimiser, ms"])
    )


@pytest.mark.slow
def test_what_padding_takes_stands_beside_what_the_rule_chooses(tmp_path):
    assert padding.main(["--quick"], tmp_path) == 0
    rows = json.loads((tmp_path / "padding.json").read_text())["tables"]["Padding"]
    assert [(row["widths"], row["dropout"]) for row in rows] == [("16 and 4", 0.0), ("16 and 4", 0.25)]
    assert all(row["ratio"] == pytest.approx(row["one pack"] / row["two packs"]) for row in rows)
    assert all(row["rule"] == "one pack" for row in rows)


def test_bytes_that_are_moved_are_counted_as_by_hand():
    case = Case("mlp", 1, 16, (1, 8, 8), 4, 1)
    linear, relu, output = 3 * 64 + 2 * 16, 5 * 16, 3 * 16 + 2 * 10
    assert ways.moved(case) == 4 * (4 * (linear + relu + output) + 10 * (65 * 16 + 17 * 10))


def test_the_products_of_a_step_are_found():
    case = Case("cnn", 1, 2, (1, 8, 8), 4, 4)
    config, network = case.config, models.build(case.config, case.image_shape, 10)
    pack = Pack.start(network, [config] * 3, range(3), seed=0, device=torch.device("cpu"), dtype=torch.float32)
    with ways.Products() as products:
        logits = network.forward(pack.weights, pack.buffers, torch.rand(3, 4, 1, 8, 8), lambda layer, x, rate=None: x)
        pack.differentiate(logits, cross_entropy_gradient(logits, torch.zeros(3, 4, dtype=torch.int64)))
    convolution, linear = ["convolution", "convolution_backward"], ["baddbmm", "bmm", "bmm"]
    assert sorted(call.func._opname for call in products.calls) == sorted(convolution + linear)


def test_an_unfolded_convolution_is_the_convolution():
    case = Case("resnet", 1, 2, (3, 8, 8), 4, 4)
    module, x = loops.alone(case).eval(), torch.from_numpy(loops.images(case, 3)[0])
    expected = module(x)
    torch.testing.assert_close(ways.unfolded(module)(x), expected)


def test_floating_point_operations_are_counted_as_by_hand():
    case = Case("mlp", 1, 16, (1, 8, 8), 4, 1)
    forward = 2 * 4 * (64 * 16 + 16 * 10)
    first_needs_no_gradient_of_its_input = 2 * 4 * 64 * 16
    assert ways.flops(case) == 3 * forward - first_needs_no_gradient_of_its_input


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.family)
def test_all_ways_train_a_network_of_the_same_size(case):
    network = loops.alone(case)
    assert sum(p.numel() for p in network.parameters()) == loops.n_parameters(case)
    x = torch.from_numpy(loops.images(case, 3)[0])
    assert network(x).shape == (3, 10)


@pytest.mark.parametrize("pack", [1, 2, 4])
def test_a_lap_of_the_lab_counts_the_replicas_of_one_pack(pack):
    work = loops.lab(CASES[0], 0.0, pack=pack)
    assert work.replica_steps == loops.N_BATCHES * pack


def test_a_moment_belongs_to_the_innermost_part_that_has_a_name(monkeypatch):
    class Code:
        co_filename = "/somewhere/lab/training/evaluation.py"

    class Frame:
        f_code, f_back = Code, sys._getframe()

    assert whole_study.part_of(Frame) == "evaluation"
    assert whole_study.part_of(sys._getframe()) == whole_study.REST
