"""Augmentation of batches: off by default, within its strengths, on each replica's own stream, whatever the pack."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from lab import seeds
from lab.data import load
from lab.knobs import TrialConfig
from lab.spec import Replication
from lab.training import augment, fit
from lab.training.augment import KNOBS, Augmentation
from lab.training.counters import Counters
from lab.training.moment import Moment

CPU = torch.device("cpu")
ALL = dict(
    flip=0.5, shift=0.1, rotation=15.0, zoom=0.1, brightness=0.2, contrast=0.2, pixel_noise=0.1, cutout=0.3, mixup=0.4
)
EACH = [dict(), ALL, *({name: value} for name, value in ALL.items())]
BATCH = 6


def images(n_replicas):
    one = torch.rand(1, BATCH, 2, 9, 11, generator=torch.Generator().manual_seed(3))
    return one.expand(n_replicas, -1, -1, -1, -1).contiguous()


def augmented(configs, inits, *, step=0, seed=0):
    labels = torch.arange(BATCH).repeat(len(configs), 1) % 4
    black = torch.zeros(len(configs), 1, 2, 1, 1)
    augmentation = Augmentation(configs, inits, seed=seed, device=CPU, dtype=torch.float32)
    augmentation.begin(step, 1)
    return augmentation(Moment(0), images(len(configs)), labels, black, 4)


def test_without_strengths_it_is_off_and_every_knob_switches_it_on():
    assert set(ALL) == set(KNOBS)
    for knobs in EACH:
        augmentation = Augmentation([TrialConfig(**knobs)], [0], seed=0, device=CPU, dtype=torch.float32)
        assert augmentation.is_off == (not knobs)


@pytest.mark.parametrize("knobs", EACH[1:], ids=lambda knobs: "+".join(knobs))
def test_a_replica_is_augmented_the_same_whatever_the_pack(knobs):
    plain, strong = TrialConfig(), TrialConfig(**knobs)
    alone = augmented([strong], [7], step=5)
    packed = augmented([plain, strong, dataclasses.replace(strong, mixup=2.0), strong], [7, 7, 2, 3], step=5)
    torch.testing.assert_close(packed[0][1], alone[0][0], rtol=0, atol=0)
    target = alone[1][0] if alone[1].dim() == packed[1].dim() else torch.nn.functional.one_hot(alone[1][0], 4).float()
    torch.testing.assert_close(packed[1][1].float(), target.float(), rtol=0, atol=0)
    torch.testing.assert_close(packed[0][0], images(1)[0], rtol=0, atol=2e-6)  # its neighbours' knobs are not its own


@pytest.mark.parametrize("knobs", EACH[1:], ids=lambda knobs: "+".join(knobs))
def test_steps_streams_and_seeds_draw_differently(knobs):
    config = TrialConfig(**knobs)
    results = [
        augmented([config], [0])[0], augmented([config], [1])[0], augmented([config], [0], step=1)[0],
        augmented([config], [0], seed=1)[0],
    ]  # fmt: skip
    for k, one in enumerate(results):
        for other in results[:k]:
            assert not torch.equal(one, other)


def test_keep_leaves_the_others_as_they_were():
    configs = [TrialConfig(rotation=10.0 * k, mixup=float(k), pixel_noise=0.1) for k in range(4)]
    augmentation = Augmentation(configs, [0, 1, 2, 3], seed=0, device=CPU, dtype=torch.float32)
    black, labels = torch.zeros(4, 1, 2, 1, 1), torch.zeros(4, BATCH, dtype=torch.long)
    rows = torch.tensor([1, 3])
    augmentation.begin(2, 1)
    before, _ = augmentation(Moment(0), images(4), labels, black, 4)
    augmentation.keep(rows)
    after, _ = augmentation(Moment(0), images(2), labels[:2], black[:2], 4)
    torch.testing.assert_close(after, before[rows], rtol=0, atol=0)


def test_strengths_are_bounds_that_are_reached():
    config = TrialConfig(shift=0.2, rotation=20.0)
    augmentation = Augmentation([config], [0], seed=0, device=CPU, dtype=torch.float64)
    pixels = augmentation._pixels(Moment(0), "right", 5000, 10)
    counts = np.bincount(pixels[0].long().numpy() + 2)
    assert len(counts) == 5  # −2 to 2
    assert stats.chisquare(counts).pvalue > 0.01
    turns = augmentation._symmetric(Moment(0), "angle", 5000)[0].numpy()
    assert stats.kstest(turns, stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_a_side_of_cutout_is_a_share_of_the_side():
    x, _ = augmented([TrialConfig(cutout=4 / 9)], [0])
    squares = (x[0] == 0).all(dim=1).sum(dim=(1, 2))
    assert int(squares.max()) == 16
    assert int(squares.min()) >= 4  # at a corner, a quarter of it


def test_targets_of_a_mixture_are_distributions_in_the_shares_of_its_images():
    x, q = augmented([TrialConfig(mixup=1.0)], [4])
    torch.testing.assert_close(q.sum(dim=-1), torch.ones(1, BATCH))
    assert int((q > 0).sum(dim=-1).max()) == 2
    # one image of each class alone: pixels are linear in the targets
    labels = torch.arange(4)[None]
    augmentation = Augmentation([TrialConfig(mixup=1.0)], [4], seed=0, device=CPU, dtype=torch.float32)
    pure = images(1)[:, :4]
    x, q = augmentation(Moment(0), pure, labels, torch.zeros(1, 1, 2, 1, 1), 4)
    torch.testing.assert_close(x[0], torch.einsum("bk,kchw->bchw", q[0], pure[0]))


def test_the_share_of_an_image_in_its_mixture_comes_from_the_beta_distribution_of_its_replica():
    alphas = (0.2, 1.0, 3.0)
    augmentation = Augmentation(
        [TrialConfig(mixup=alpha) for alpha in alphas], [0, 1, 2], seed=0, device=CPU, dtype=torch.float64
    )
    shares = augmentation._share(Moment(0), 5000).numpy()
    for share, alpha in zip(shares, alphas, strict=True):
        assert stats.kstest(share, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_uniform_and_normal_numbers_are_what_they_are_called_and_streams_are_unrelated():
    counters = Counters([seeds.stream(0, "augment", i) for i in range(3)], CPU)
    counters.begin(0, 2)
    now, later = Moment(0), Moment(1)
    u, z = counters.uniform(now, 1, 20_000).numpy(), counters.normal(now, 2, 20_001).numpy()
    assert z.shape == (3, 20_001)
    for k in range(3):
        assert stats.kstest(u[k], stats.uniform.cdf).pvalue > 0.01
        assert stats.kstest(z[k], stats.norm.cdf).pvalue > 0.01
    others = np.corrcoef(np.vstack([u, counters.uniform(later, 1, 20_000), counters.uniform(now, 3, 20_000)]))
    assert np.abs(others - np.eye(9)).max() < 0.03  # 4 standard deviations


def test_training_with_augmentation_does_not_depend_on_the_pack_and_leaves_evaluation_images_alone():
    config = TrialConfig(width=8, depth=1, n_train=40, batch_size=16, epochs=3, **ALL)
    dataset, replication = load("digits", seed=0, n_test=50), Replication("disjoint", 2, 2)
    together, apart = (
        list(fit(config, dataset, replication, seed=0, n_evaluations=2, pack_size=size))[-1] for size in (4, 1)
    )
    np.testing.assert_allclose(together.probabilities_test_DINC, apart.probabilities_test_DINC, rtol=0, atol=2e-5)
    plain = dataclasses.replace(config, **dict.fromkeys(ALL, 0.0))
    untouched = list(fit(plain, dataset, replication, seed=0, n_evaluations=2))[-1]
    assert np.abs(untouched.probabilities_test_DINC - together.probabilities_test_DINC).max() > 1e-3


def test_pixel_noise_is_torchvisions_gaussian_noise(monkeypatch):
    """Its strength counts standard deviations of the training pixels: here a quarter of the range."""
    pixels, mean, std = torch.rand(1, BATCH, 1, 9, 11, generator=torch.Generator().manual_seed(1)), 0.4, 0.25
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = v2.GaussianNoise(sigma=0.3 * std, clip=False)(pixels)
        torch.manual_seed(7)
        noise = torch.randn_like(pixels)
    monkeypatch.setattr(Counters, "normal", lambda self, moment, purpose, n: noise.flatten()[None])
    augmentation = Augmentation([TrialConfig(pixel_noise=0.3)], [0], seed=0, device=CPU, dtype=torch.float32)
    augmentation.begin(0, 1)
    labels, black = torch.zeros(1, BATCH, dtype=torch.long), torch.full((1, 1, 1, 1, 1), -mean / std)
    x, _ = augmentation(Moment(0), (pixels - mean) / std, labels, black, 4)
    torch.testing.assert_close(x * std + mean, expected, rtol=0, atol=1e-6)


N_DRAWS = 4000
DRAWN = {  # knob, strength → what it hands on to which function, and what torchvision's transform draws for an image
    "rotation": (20.0, "move", "angle_RB", lambda x: v2.RandomRotation(20).make_params([x])["angle"]),
    "zoom": (0.3, "move", "scale_RB", lambda x: v2.RandomAffine(0, scale=(0.7, 1.3)).make_params([x])["scale"]),
    "shift": (0.2, "move", "right_RB", lambda x: 2 - v2.RandomCrop((10, 10), padding=2).make_params([x])["left"]),
    "brightness": (0.3, "brighten", 2, lambda x: v2.ColorJitter(brightness=0.3).make_params([x])["brightness_factor"]),
    "contrast": (
        0.2,
        "stretch_contrast",
        1,
        lambda x: v2.ColorJitter(contrast=0.2).make_params([x])["contrast_factor"],
    ),
}


@pytest.mark.parametrize("knob", DRAWN)
def test_strengths_are_drawn_by_the_laws_of_torchvision(knob, monkeypatch):
    strength, function, where, theirs = DRAWN[knob]
    seen = []

    def noted(x, *others, **named):
        seen.append({**dict(enumerate((x, *others))), **named}[where])
        return x

    monkeypatch.setattr(augment.augmentation, function, noted)
    augmentation = Augmentation([TrialConfig(**{knob: strength})], [0], seed=0, device=CPU, dtype=torch.float64)
    augmentation.begin(0, 1)
    images, labels = torch.zeros(1, N_DRAWS, 1, 10, 10), torch.zeros(1, N_DRAWS, dtype=torch.long)
    augmentation(Moment(0), images, labels, torch.zeros(1, 1, 1, 1, 1), 2)
    image = torch.zeros(1, 10, 10)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = np.array([theirs(image) for _ in range(N_DRAWS)], dtype=float)
    found = seen[0].numpy().ravel()
    assert found.min() == pytest.approx(expected.min(), abs=0.02 * np.ptp(expected))
    assert found.max() == pytest.approx(expected.max(), abs=0.02 * np.ptp(expected))
    assert stats.ks_2samp(found, expected).pvalue > 0.01


def test_as_many_images_are_flipped_as_the_knob_says(monkeypatch):
    seen = []
    monkeypatch.setattr(augment.augmentation, "flip", lambda x, flipped_RB: seen.append(flipped_RB) or x)
    augmentation = Augmentation([TrialConfig(flip=0.3)], [0], seed=0, device=CPU, dtype=torch.float64)
    augmentation.begin(0, 1)
    images, labels = torch.zeros(1, N_DRAWS, 1, 2, 2), torch.zeros(1, N_DRAWS, dtype=torch.long)
    augmentation(Moment(0), images, labels, torch.zeros(1, 1, 1, 1, 1), 2)
    assert stats.binomtest(int(seen[0].sum()), N_DRAWS, 0.3).pvalue > 0.01
