import json
from pathlib import Path

import numpy as np
import pytest

from lab import study
from tests.command_line import one_line_error


def predictions(n_resamples=4, n_inits=3, n_points=20, n_classes=3):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(n_classes), size=(n_resamples, n_inits, n_points))
    return {"probabilities": p, "labels": rng.integers(n_classes, size=n_points)}


def test_decompose_takes_anyones_predictions(project, capsys):
    arrays = predictions()
    np.savez("crossed.npz", **arrays)
    assert study.main(["decompose", "crossed.npz", "--json"]) == 0
    captured = capsys.readouterr()
    parts = json.loads(captured.out)
    losses = ((arrays["probabilities"] - np.eye(3)[arrays["labels"]]) ** 2).sum(-1)
    assert parts["risk"] == pytest.approx(losses.mean(), abs=1e-12)
    assert parts["bias_sq"] + parts["variance"] == pytest.approx(parts["risk"], abs=1e-12)
    assert "bias² + noise" in captured.err
    # the same replicas as independent ones: variance is their unbiased variance
    flat = arrays["probabilities"].reshape(12, 20, 3)
    np.savez("independent.npz", predictions=flat.astype(np.float32), labels_N=arrays["labels"])
    assert study.main(["decompose", "independent.npz", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert parts["variance"] == pytest.approx(flat.var(axis=0, ddof=1).sum(-1).mean(), abs=1e-6)
    assert parts["variance_init"] is None


def test_decompose_takes_logits_other_losses_and_designs(project, capsys):
    arrays = predictions()
    np.savez("logits.npz", logits=np.log(arrays["probabilities"]), labels=arrays["labels"])
    assert study.main(["decompose", "logits.npz", "--loss", "cross_entropy", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    right = np.take_along_axis(arrays["probabilities"], arrays["labels"][None, None, :, None], axis=-1)
    assert parts["risk"] == pytest.approx(-np.log(right).mean(), abs=1e-12)
    assert parts["bias"] + parts["variance"] == pytest.approx(parts["risk"], abs=1e-12)
    assert study.main(["decompose", "logits.npz", "--design", "nested", "--level", "0.5", "--json"]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert (parts["design"], parts["level"], parts["variance_interaction"]) == ("nested", 0.5, None)
    # predicted classes alone, of few replicas
    hard = arrays["probabilities"].argmax(axis=-1).reshape(12, 20)[:5]
    np.savez("hard.npz", predictions=hard, labels=arrays["labels"])
    assert study.main(["decompose", "hard.npz", "--loss", "zero_one"]) == 0
    text = capsys.readouterr().err
    assert f"{(hard != arrays['labels']).mean():.5f}" in text
    assert "Kohavi–Wolpert bias² + noise" in text
    assert "fewer than 10 replicas" in text
    assert study.main(["decompose", "hard.npz", "--level", "95"]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("labels"), "no array 'labels': it holds probabilities"),
        (lambda a: a.pop("probabilities"), "no array 'probabilities'"),
        (
            lambda a: a.update(probabilities=a["probabilities"][0, 0]),
            "(D, I, K, N, C) or (R, N, C)",
        ),
        (lambda a: a.update(probabilities=np.ones((2, 2, 20, 3), int)), "int64"),
        (lambda a: a.update(probabilities=a["probabilities"] * 3 - 1), "run from"),
        (lambda a: a.update(probabilities=a["probabilities"] * 0.5), "sum to"),
        (lambda a: a["probabilities"].__setitem__((1, 1, 5, 2), np.nan), "NaN"),
        (lambda a: a.update(labels=a["labels"][:-1]), "labels have shape (19,)"),
        (lambda a: a.update(labels=a["labels"] + 1), "labels run from 1 to 3"),
        (lambda a: a.update(labels=a["labels"] + 0.5), "labels are float64"),
        (lambda a: a.update(posterior=np.full((20, 3), 0.5)), "posterior"),
        (lambda a: a.update(labels=np.array([{"a": 1}] * 20, dtype=object)), "allow_pickle=False"),
    ],
)
def test_decompose_refuses_in_one_line_what_cannot_be_decomposed(project, capsys, change, message):
    arrays = predictions()
    change(arrays)
    np.savez("given.npz", **arrays)
    assert study.main(["decompose", "given.npz"]) == 2
    error = one_line_error(capsys)
    assert "given.npz" in error
    assert message in error


def test_decompose_refuses_files_that_are_no_npz(project, capsys):
    Path("text.npz").write_text("hello")
    np.save("one.npy", np.ones(3))
    np.savez("whole.npz", **predictions())
    Path("cut.npz").write_bytes(Path("whole.npz").read_bytes()[:500])
    for name in ("text.npz", "one.npy", "cut.npz", "studies"):
        assert study.main(["decompose", name]) == 2
        assert name in one_line_error(capsys)


def test_a_file_of_another_kind_is_refused_without_numpys_advice_to_open_pickles(project, capsys):
    Path("notes.npz").write_text("these are notes")
    assert study.main(["decompose", "notes.npz"]) == 2
    error = one_line_error(capsys)
    assert "notes.npz cannot be read as .npz: it is a file of another kind" in error and "pickle" not in error
