"""What does each technique change in a convolutional network: bias, variance, or neither?

As `interventions`, with a convolutional baseline and the techniques that only such networks have: dropout of whole
channels, average pooling, two convolutions before each pooling, shifts and turns of the image. All variants are trained
on the same training sets from the same seeds and measured at the same test images.
Fixed: data, learning rate (tuned for none of them).  Takes: 57 to 69 s on 2 cores of an AMD EPYC;
with --data fashion_mnist --set n_test=1000, 19 minutes (n = 1).
Run: python -m lab.study run interventions_cnn        (--smoke: a small version)
"""

from lab.spec import Replication, Study

STUDY = Study(
    question="What does each technique change in a convolutional network: bias, variance, or neither?",
    data="digits",
    fixed=dict(family="cnn", depth=2, width=16, optimizer="adam", learning_rate=3e-3, batch_size=32, epochs=40),
    variants={
        "baseline": {},
        "spatial_dropout_0.2": dict(spatial_dropout=0.2),
        "dropout_0.3": dict(dropout=0.3),
        "average_pooling": dict(pooling="average"),
        "two_convolutions_a_block": dict(convolutions=2),
        "batch_norm": dict(norm="batch"),
        "group_norm": dict(norm="group"),
        "residual": dict(residual="on"),
        "residual_network": dict(family="resnet", depth=1, width=8, norm="batch"),
        "wider": dict(width=32),
        "deeper": dict(depth=3),
        "shifted_images": dict(shift=0.125),
        "rotated_images": dict(rotation=15.0),
        "noisy_images": dict(pixel_noise=0.5),
        "cutout": dict(cutout=0.4),
        "mixup": dict(mixup=0.2),
        "l2_0.01": dict(weight_decay=1e-2),
        "fgsm_training": dict(adversarial="fgsm", epsilon=0.1),
    },
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=4),
    n_trials=18,
    learning_curve=(),
)
