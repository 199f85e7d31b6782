"""What does training for robustness do to bias and variance, on clean images and under attack?

Every variant is tested twice: on the test images as they are, and on the same images under attack (projected gradient
ascent, 7 steps, each pixel moved by 0.1 of its range at the most), each replica by its own gradients. The parts of the
second error are `attacked_bias_sq`, `attacked_variance` and so on, in MLflow and in trials.csv.
Fixed: architecture, data, epochs.  Source: Goodfellow et al. 2015, Madry et al. 2018.
Run: python -m lab.study run robustness        (--smoke: seconds)
"""

from lab.spec import Replication, Study

STUDY = Study(
    question="What does training for robustness do to bias and variance, on clean images and under attack?",
    data="digits",
    fixed=dict(
        family="mlp",
        depth=2,
        width=64,
        optimizer="adam",
        learning_rate=3e-3,
        batch_size=32,
        epochs=60,
        attack_epsilon=0.1,
    ),
    variants={
        "baseline": {},
        "fgsm_0.05": dict(adversarial="fgsm", epsilon=0.05),
        "fgsm_0.1": dict(adversarial="fgsm", epsilon=0.1),
        "pgd_0.05": dict(adversarial="pgd", epsilon=0.05),
        "pgd_0.1": dict(adversarial="pgd", epsilon=0.1),
        "pgd_0.2": dict(adversarial="pgd", epsilon=0.2),
        "pixel_noise": dict(pixel_noise=0.5),
        "weight_decay": dict(weight_decay=1e-2),
        "dropout": dict(dropout=0.3),
        "wider": dict(width=256),
    },
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=4),
    learning_curve=(),
)
