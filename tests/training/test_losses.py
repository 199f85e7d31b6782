"""Training losses against references written out in float64 numpy and against torch.nn and scikit-learn."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax
from sklearn.utils.class_weight import compute_class_weight

from lab.training import losses
from lab.training.losses import LOSSES, Criterion, balanced_weights, cross_entropy_gradient

R, B, C = 3, 7, 4
SMOOTHING_R = torch.tensor([0.0, 0.1, 0.4], dtype=torch.float64)
GAMMA_R = torch.tensor([0.0, 2.0, 0.5], dtype=torch.float64)
NONE_R = torch.zeros(R, dtype=torch.float64)


@pytest.fixture
def logits():
    return torch.from_numpy(3 * np.random.default_rng(0).standard_normal((R, B, C))).requires_grad_()


@pytest.fixture
def labels():
    return torch.from_numpy(np.random.default_rng(1).integers(C, size=(R, B)))


def mean_loss(loss, logits_BC, q_BC, smoothing, gamma, weights_C):
    """The loss of one replica as it is defined: class by class."""
    p_BC, total, divisor = torch.softmax(logits_BC, 1), 0, 0
    for b, p in enumerate(p_BC):
        for c in range(len(p)):
            value = {
                "cross_entropy": lambda p=p, c=c: -torch.log(p[c]),
                "brier": lambda p=p, c=c: ((torch.eye(len(p))[c] - p) ** 2).sum(),
                "focal": lambda p=p, c=c: (1 - p[c]) ** gamma * -torch.log(p[c]),
            }[loss]()
            total = total + weights_C[c] * ((1 - smoothing) * q_BC[b, c] + smoothing / len(p)) * value
            divisor = divisor + weights_C[c] * q_BC[b, c]
    return total / divisor


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("smooth", [False, True], ids=["as they are", "smooth"])
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("soft", [False, True], ids=["labels", "distributions"])
def test_the_gradient_is_that_of_the_loss_as_it_is_defined_with_its_own_parameters_in_each_replica(
    logits, labels, loss, smooth, weighted, soft
):
    rng = np.random.default_rng(2)
    weights = torch.from_numpy(rng.random((R, C)) + 0.1) if weighted else None
    q = torch.from_numpy(rng.dirichlet(np.ones(C), size=(R, B))) if soft else F.one_hot(labels, C).double()
    smoothing = SMOOTHING_R if smooth else NONE_R
    found = Criterion(loss, smoothing, GAMMA_R, weights).gradient(logits, q if soft else labels)
    for r in range(R):
        own = torch.ones(C, dtype=torch.float64) if weights is None else weights[r]
        value = mean_loss(loss, logits[r], q[r], smoothing[r], GAMMA_R[r], own)
        (expected,) = torch.autograd.grad(value, logits)
        torch.testing.assert_close(found[r], expected[r], rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_and_its_gradient_are_those_of_torch(logits, labels, smoothing, weighted):
    weights = torch.from_numpy(np.random.default_rng(2).random((R, C))) if weighted else None
    criterion = Criterion("cross_entropy", torch.full_like(NONE_R, smoothing), NONE_R, weights)
    gradient = criterion.gradient(logits, labels)
    for r in range(R):
        alone = logits[r].detach().clone().requires_grad_()
        own = None if weights is None else weights[r]
        torch.nn.CrossEntropyLoss(weight=own, label_smoothing=smoothing)(alone, labels[r]).backward()
        torch.testing.assert_close(gradient[r], alone.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_focal_loss_of_a_certain_prediction_has_a_finite_gradient(gamma, dtype):
    logits = torch.tensor([[[200.0, -200.0], [-200.0, 200.0], [-200.0, 200.0]]], dtype=dtype)
    criterion = Criterion("focal", torch.zeros(1), torch.full((1,), gamma))
    gradient = criterion.gradient(logits, torch.tensor([[0, 0, 1]]))
    assert torch.isfinite(gradient).all()
    assert gradient[0, [0, 2]].abs().max() < 1e-6
    # nothing is left of 1 − p: the loss is that of the cross-entropy
    torch.testing.assert_close(gradient[0, 1], torch.tensor([-1 / 3, 1 / 3], dtype=dtype))


def test_a_focal_loss_without_exponent_is_the_cross_entropy(logits, labels):
    focal, plain = (
        Criterion(name, SMOOTHING_R, NONE_R).gradient(logits, labels) for name in ("focal", "cross_entropy")
    )
    torch.testing.assert_close(focal, plain)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_replica_that_is_not_finite_leaves_the_gradients_of_the_others_alone(logits, labels, loss):
    criterion = Criterion(loss, SMOOTHING_R, GAMMA_R, torch.rand(R, C, dtype=torch.float64) + 0.5)
    healthy = criterion.gradient(logits, labels)
    for broken in ("nan", "inf"):
        poisoned = logits.detach().clone()
        poisoned[1, 0, 0] = float(broken)
        gradient = criterion.gradient(poisoned, labels)
        assert torch.equal(gradient[[0, 2]], healthy[[0, 2]])
        assert torch.isnan(gradient[1]).any()


def test_a_replica_whose_batch_has_no_class_that_counts_learns_nothing(logits):
    weights = torch.ones(R, C, dtype=torch.float64)
    weights[1, 2] = 0
    labels = torch.full((R, B), 2)
    gradient = Criterion("cross_entropy", NONE_R, NONE_R, weights).gradient(logits, labels)
    assert (gradient[1] == 0).all()
    assert (gradient[[0, 2]] != 0).any()


def test_replicas_that_leave_take_their_parameters_along(logits, labels):
    weights = torch.rand(R, C, dtype=torch.float64) + 0.5
    criterion = Criterion("focal", SMOOTHING_R, GAMMA_R, weights)
    before, kept = criterion.gradient(logits, labels), torch.tensor([2, 0])
    criterion.keep(kept)
    torch.testing.assert_close(criterion.gradient(logits[kept], labels[kept]), before[kept])


def test_balanced_weights_are_those_of_scikit_learn_and_absent_classes_have_none():
    sets = [np.array([0, 0, 0, 1, 3, 3]), np.array([0, 1, 2, 3, 3, 3])]
    counts = torch.tensor([np.bincount(y, minlength=C).tolist() for y in sets])
    found = balanced_weights(counts)
    for y, weights in zip(sets, found.numpy(), strict=True):
        present = np.unique(y)
        expected = compute_class_weight("balanced", classes=present, y=y)
        assert weights[present] == pytest.approx(expected)
        assert weights.sum() == pytest.approx(expected.sum())


def test_an_unknown_loss_is_an_error():
    with pytest.raises(ValueError, match="hinge"):
        Criterion("hinge", NONE_R, NONE_R)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n_classes", [2, 3, 10, 15, 16, 20])
@pytest.mark.parametrize(("n_replicas", "n_batch"), [(1, 1), (3, 11), (32, 32)])
@pytest.mark.parametrize("lying", ["by example", "by class"])
def test_the_gradient_of_any_number_of_classes_is_that_of_torch(dtype, n_classes, n_replicas, n_batch, lying):
    rng = np.random.default_rng(n_classes)
    logits = torch.from_numpy(10 * rng.standard_normal((n_replicas, n_batch, n_classes))).to(dtype)
    labels = torch.from_numpy(rng.integers(0, n_classes, (n_replicas, n_batch)))
    found = cross_entropy_gradient(logits if lying == "by example" else logits.mT.contiguous().mT, labels)
    assert found.dtype == dtype
    tight = {
        torch.bfloat16: {"rtol": 1e-2, "atol": 1e-4},
        torch.float32: {"rtol": 1e-5, "atol": 1e-7},
        torch.float64: {"rtol": 1e-13, "atol": 1e-16},
    }[dtype]
    for r in range(n_replicas):
        alone = logits[r].to(torch.promote_types(dtype, torch.float32)).requires_grad_()
        (wanted,) = torch.autograd.grad(F.cross_entropy(alone, labels[r]), alone)
        torch.testing.assert_close(found[r], wanted.to(dtype), **tight)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weighted", [False, True], ids=["alike", "weighted"])
@pytest.mark.parametrize("n_classes", [2, 10, 16, 33])
def test_the_gradient_of_a_replica_has_the_same_bits_at_every_place(loss, weighted, n_classes):
    rng = np.random.default_rng(0)
    for n in range(1, 70):
        logits = torch.from_numpy(5 * rng.standard_normal((7, n, n_classes), dtype=np.float32))
        labels, order = torch.from_numpy(rng.integers(0, n_classes, (7, n))), torch.from_numpy(rng.permutation(7))
        weights = torch.from_numpy(rng.random((7, n_classes), dtype=np.float32) + 0.1) if weighted else None
        criterion = Criterion(loss, torch.linspace(0, 0.4, 7), torch.linspace(0.5, 2, 7), weights)
        first = criterion.gradient(logits, labels)
        criterion.keep(order)
        second = criterion.gradient(logits[order], labels[order])
        assert first[order].numpy().tobytes() == second.numpy().tobytes()


def test_errors_are_those_of_scipy_and_of_a_replica_that_diverged_not_a_number(recwarn):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(20 * rng.standard_normal((5, 40, 10), dtype=np.float32))
    labels = rng.integers(0, 10, (1, 40))
    logits[0, 0, 3] = logits[0, 0].amax().clone() + 1
    logits[0, 0, 5] = logits[0, 0, 3]  # a tie
    broken = logits.clone()
    broken[3, 7, 2], broken[4, 0] = float("inf"), float("nan")
    for given, healthy in ((logits, 5), (broken, 3)):
        found, log_p = losses.errors(given, labels)
        expected = log_softmax(given[:healthy].double().numpy(), axis=-1)
        np.testing.assert_allclose(log_p[:healthy], expected, rtol=1e-12, atol=1e-13)
        label_hot = np.eye(10)[labels[0]]
        np.testing.assert_allclose(found.loss[:healthy], -(expected * label_hot).sum(-1).mean(-1), rtol=1e-12)
        np.testing.assert_allclose(
            found.risk[:healthy], ((np.exp(expected) - label_hot) ** 2).sum(-1).mean(-1), rtol=1e-12
        )
        top = expected == expected.max(-1, keepdims=True)
        wrong = 1 - (top / top.sum(-1, keepdims=True) * label_hot).sum(-1).mean(-1)
        np.testing.assert_allclose(found.error[:healthy], wrong, rtol=1e-12)
        assert np.isnan(np.stack(found)[:, healthy:]).all()
    assert len(recwarn) == 0


def test_errors_of_bfloat16_are_those_of_the_same_values_in_float32():
    logits = torch.randn(3, 7, 10, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = np.zeros((1, 7), dtype=np.int64)
    (found, log_p), (wanted, expected) = losses.errors(logits, labels), losses.errors(logits.float(), labels)
    assert np.array_equal(np.stack(found), np.stack(wanted))
    assert np.array_equal(log_p, expected)
