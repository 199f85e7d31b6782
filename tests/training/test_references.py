"""Every knob of a trial is held to something that is not the lab: torch, torchvision, scikit-learn, a formula.

Most are knobs of a case of tests/training/test_loop.py, which `reference.train_alone` trains with torch.nn and
torch.optim; for the others the test that compares is named here.
"""

import ast
from pathlib import Path

import pytest
from test_loop import CASES

from lab import knobs
from lab.knobs import KNOBS, TrialConfig

TESTS = Path(__file__).parent.parent
VARIED = {name for case in CASES for name in case}
HELD = {
    "clip_norm": "training/test_stopping.py::test_gradients_are_clipped_replica_by_replica_as_torch_clips_one_network",
    "learning_rate": "training/test_optimizers.py::"
    "test_each_replica_is_updated_with_its_own_rates_as_torch_updates_it_alone",
    "patience": "training/test_stopping.py::test_a_replica_stops_where_its_curve_says_and_goes_back_to_its_best",
    "ema_decay": "training/test_averaging.py::test_ema_is_that_of_torch_once_its_decay_has_warmed_up",
    "swa_start": "training/test_averaging.py::test_swa_is_the_mean_over_the_ends_of_the_last_epochs",
    "backbone": "models/test_pretrained.py::test_with_the_weights_of_a_file_a_trunk_computes_what_torchvision_computes",
    "weights": "models/test_pretrained.py::test_a_replica_trains_as_torch_trains_it",
    "new_head": "training/test_starts.py::"
    "test_a_new_head_is_the_one_that_the_seed_would_have_had_and_the_rest_is_that_of_the_file",
    "attack_epsilon": "training/test_attacked.py::test_predictions_under_attack_are_those_that_torch_finds",
    "attack_strengths": "training/test_attacked.py::test_predictions_under_attack_are_those_that_torch_finds",
    "corruption": "data/test_corruption.py::test_contrast_brightness_and_pixels_are_those_of_their_formulas",
    "severity": "data/test_corruption.py::test_noises_have_the_variance_of_their_law",
    "precision": "training/test_precision.py::test_bfloat16_is_close_to_float32_and_weights_stay_float32",
    "resize": "data/test_transforms.py::test_resized_images_are_those_of_torchvision",
    "flip": "data/test_augmentation.py::test_flip_is_torchvisions_for_the_images_it_is_asked_for",
    "shift": "data/test_augmentation.py::test_move_is_torchvisions_affine_map_with_black_from_outside",
    "rotation": "data/test_augmentation.py::test_move_is_torchvisions_affine_map_with_black_from_outside",
    "zoom": "data/test_augmentation.py::test_move_is_torchvisions_affine_map_with_black_from_outside",
    "brightness": "data/test_augmentation.py::test_brightness_is_torchvisions_where_it_clips_nothing",
    "contrast": "data/test_augmentation.py::test_contrast_is_torchvisions_for_grey_images_where_it_clips_nothing",
    "pixel_noise": "training/test_augment.py::test_pixel_noise_is_torchvisions_gaussian_noise",
    "cutout": "data/test_augmentation.py::test_cutout_erases_the_square_torchvision_erases_and_leaves_the_mean",
    "mixup": "data/test_augmentation.py::test_mixup_is_torchvisions_for_its_partner_and_share",
    "imbalance_ratio": "data/test_imbalance.py::test_places_go_to_classes_as_webster_would_give_them_one_by_one",
    "sampling": "data/test_imbalance.py::test_counts_are_those_of_imbalanced_learn",
    "label_noise": "data/test_label_noise.py::test_every_class_turns_into_every_other_equally_often",
    "noisy_targets": "data/test_label_noise.py::"
    "test_the_posterior_after_noise_is_that_of_the_clean_labels_mixed_with_an_even_one",
    "width": "models/test_families.py::test_parameters_are_counted_as_by_hand",
}
OPTIONS = {
    "activation": knobs.ACTIVATIONS, "norm": knobs.NORMS, "pooling": knobs.POOLINGS, "residual": knobs.RESIDUALS,
    "optimizer": knobs.OPTIMIZERS, "schedule": knobs.SCHEDULES, "loss": knobs.LOSSES, "adversarial": knobs.ATTACKS,
    "class_weights": knobs.CLASS_WEIGHTS, "averaging": knobs.AVERAGINGS, "normalize": knobs.NORMALIZATIONS,
}  # fmt: skip


def test_no_knob_is_without_a_reference():
    assert set(KNOBS) - VARIED - set(HELD) == set()


@pytest.mark.parametrize("place", sorted(set(HELD.values())))
def test_the_test_that_is_named_is_there(place):
    file, name = place.split("::")
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("knob", OPTIONS)
def test_every_option_is_trained_alone_too(knob):
    tried = {case.get(knob, getattr(TrialConfig(), knob)) for case in CASES}
    assert tried == set(OPTIONS[knob])
