"""What does each technique against overfitting change: bias, variance, or neither?

A baseline, and techniques switched on one at a time: augmentation, regularisation, losses, normalisation, activations,
initial weights, optimisers, schedules, capacity, averages of weights, preprocessing, adversarial training. All are
trained on the same training sets from the same seeds and measured at the same test images, so each compares with the
baseline in pairs. Ensembles come without any training.
Fixed: data, learning rate (tuned for none of them, so "as an addition to this baseline" is what is measured).
Takes: 80 to 85 s on 2 cores of an AMD EPYC, 131 s on 2 of an Intel Xeon.
Run: python -m lab.study run interventions        (--smoke: a small version)
"""

from lab.spec import Replication, Study

STUDY = Study(
    question="What does each technique change: bias, variance, or neither?",
    data="digits",
    fixed=dict(family="mlp", depth=2, width=64, optimizer="adam", learning_rate=3e-3, batch_size=32, epochs=60),
    variants={
        "baseline": {},
        "dropout_0.3": dict(dropout=0.3),
        "shifted_images": dict(shift=0.125),
        "rotated_images": dict(rotation=15.0),
        "zoomed_images": dict(zoom=0.15),
        "noisy_images": dict(pixel_noise=0.5),
        "flipped_images": dict(flip=0.5),
        "brighter_or_darker": dict(brightness=0.3),
        "more_or_less_contrast": dict(contrast=0.3),
        "cutout": dict(cutout=0.4),
        "mixup": dict(mixup=0.2),
        "l1_0.001": dict(l1=1e-3),
        "l2_0.01": dict(weight_decay=1e-2),
        "decoupled_decay_0.3": dict(optimizer="adamw", weight_decay=0.3),
        "early_stopping": dict(patience=3),
        "gradient_clipping_0.5": dict(clip_norm=0.5),
        "label_smoothing_0.1": dict(label_smoothing=0.1),
        "brier_loss": dict(loss="brier"),
        "focal_loss": dict(loss="focal", focal_gamma=2.0),
        "balanced_class_weights": dict(class_weights="balanced"),
        "ema": dict(averaging="ema", ema_decay=0.99),
        "swa": dict(averaging="swa", swa_start=0.75),
        "batch_norm": dict(norm="batch"),
        "layer_norm": dict(norm="layer"),
        "tanh": dict(activation="tanh"),
        "sigmoid": dict(activation="sigmoid"),
        "gelu": dict(activation="gelu"),
        "orthogonal_init": dict(init_scheme="orthogonal"),
        "small_init": dict(init_gain=0.3),
        "sgd_momentum": dict(optimizer="sgd", learning_rate=0.05, momentum=0.9),
        "sgd_nesterov": dict(optimizer="sgd", learning_rate=0.05, momentum=0.9, nesterov=True),
        "lower_rate": dict(learning_rate=1e-3),
        "cosine_schedule": dict(schedule="cosine"),
        "one_cycle": dict(schedule="one_cycle"),
        "twice_the_epochs": dict(epochs=120),
        "bfloat16": dict(precision="bf16"),
        "small_batches": dict(batch_size=8),
        "residual": dict(residual="on"),
        "wider": dict(width=256),
        "deeper": dict(depth=4),
        "narrower": dict(width=16),
        "fgsm_training": dict(adversarial="fgsm", epsilon=0.1),
        "pgd_training": dict(adversarial="pgd", epsilon=0.1),
        "cnn": dict(family="cnn", width=16),
        "larger_images": dict(resize=16),
        "plain_pixels": dict(normalize="none"),
        "half_the_data": dict(n_train=75),
        "wrong_labels_0.1": dict(label_noise=0.1),
    },
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=8),
    n_trials=48,
    learning_curve=(),
)
