"""Where a network sees a class, against maps computed by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lab import models
from lab.knobs import TrialConfig
from lab.training import cam

K, CLASSES = 5, np.array([0, 3, 3, 1, 2])


def drawn(config, n_replicas=3, shape=(1, 8, 8)):
    """Weights of some networks as an evaluation holds them, and images."""
    rng = np.random.default_rng(0)
    network = models.build(config, shape, 4)
    weights = {p.name: rng.standard_normal((n_replicas, *p.shape)).astype(np.float32) for p in network.parameters}
    weights["input.mean"] = rng.random((n_replicas, shape[0])).astype(np.float32)
    weights["input.std"] = 0.5 + rng.random((n_replicas, shape[0])).astype(np.float32)
    return network, weights, rng.random((K, *shape)).astype(np.float32)


def enlarged(maps_Khw):
    return F.interpolate(torch.from_numpy(maps_Khw)[:, None], size=(8, 8), mode="bilinear")[:, 0].numpy()


def test_for_a_convolution_and_a_linear_head_it_is_what_the_formula_says():
    _, w, images = drawn(config := TrialConfig(family="cnn", depth=1, width=6))
    expected = []
    for r in range(3):
        x = torch.from_numpy((images - w["input.mean"][r]) / w["input.std"][r])
        a = F.conv2d(x, torch.from_numpy(w["block0.weight"][r]), torch.from_numpy(w["block0.bias"][r]), padding=1)
        a = F.max_pool2d(F.relu(a), 2).numpy()  # (K, 6, 4, 4)
        slopes = w["output.weight"][r].reshape(6, 4, 4, 4)[..., CLASSES]  # of logit c with respect to a: the weights
        alpha = slopes.mean(axis=(1, 2)).T
        found = np.maximum((alpha[:, :, None, None] * a).sum(axis=1), 0)
        expected.append(found / found.max(axis=(1, 2), keepdims=True).clip(1e-30))
    seen = cam.maps(config, w, images, CLASSES, rows=[0, 1, 2], n_classes=4)
    np.testing.assert_allclose(seen, enlarged(np.mean(expected, axis=0)), rtol=1e-4, atol=1e-5)


def test_for_a_mean_over_pixels_and_a_linear_head_it_is_the_class_activation_map():
    """Zhou et al. 2016: w · A, here with its negative part cut off and scaled to 1."""
    network, w, images = drawn(config := TrialConfig(family="resnet", depth=1, width=2), 1, (1, 16, 16))
    own = {name: torch.from_numpy(values) for name, values in w.items()}
    x = network.enter((torch.from_numpy(images) - own["input.mean"][0])[None] / own["input.std"][0])
    for k in range(network.n_blocks):
        x = network.block(k, x, own, own, None)
    maps = np.einsum("kchw,ck->khw", x[0].numpy(), w["output.weight"][0][:, CLASSES])
    maps = np.maximum(maps, 0)
    maps /= maps.max(axis=(1, 2), keepdims=True).clip(1e-30)
    expected = F.interpolate(torch.from_numpy(maps)[:, None], size=(16, 16), mode="bilinear")[:, 0]
    seen = cam.maps(config, w, images, CLASSES, rows=[0], n_classes=4)
    np.testing.assert_allclose(seen, expected, rtol=1e-4, atol=1e-5)
    assert seen.max() > 0.5


def test_replicas_that_do_not_count_change_nothing():
    _, w, images = drawn(config := TrialConfig(family="cnn", depth=1, width=6))
    expected = cam.maps(config, w, images, CLASSES, rows=[0, 2], n_classes=4)
    for values in w.values():
        values[1] = np.nan
    np.testing.assert_array_equal(cam.maps(config, w, images, CLASSES, rows=[0, 2], n_classes=4), expected)


@pytest.mark.parametrize("knobs", [dict(family="mlp"), dict(family="cnn", depth=3)])
def test_where_there_is_no_place_to_see_there_is_no_map(knobs):
    _, w, images = drawn(config := TrialConfig(width=4, **knobs))
    assert cam.maps(config, w, images, CLASSES, rows=[0], n_classes=4) is None


def test_without_a_replica_there_is_no_map():
    _, w, images = drawn(config := TrialConfig(family="cnn", depth=1, width=6))
    assert cam.maps(config, w, images, CLASSES, rows=[], n_classes=4) is None
