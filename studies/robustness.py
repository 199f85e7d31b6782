"""What does training for robustness do to bias and variance, on clean images, under attack and under corruption?

Every variant is tested on the test images as they are; under attacks of four strengths (projected gradient ascent, 7
steps, each pixel moved by 0.05, 0.1, 0.15 or 0.2 of its range at the most, each replica by its own gradients); and with
Gaussian noise at five severities. The parts of these errors are `attacked_2_bias_sq`, `corrupted_1_variance` and so on,
in MLflow and in trials.csv.
Fixed: architecture, data, epochs.  Takes: 26 to 28 s on 2 cores of an AMD EPYC (n = 3).
Source: Goodfellow et al. 2015, Madry et al. 2018, Hendrycks & Dietterich 2019.
Run: python -m lab.study run robustness        (--smoke: seconds)
"""

from lab.spec import Replication, Study

STUDY = Study(
    question="What does training for robustness do to bias and variance, on clean images, under attack and corruption?",
    data="digits",
    fixed=dict(
        family="mlp",
        depth=2,
        width=64,
        optimizer="adam",
        learning_rate=3e-3,
        batch_size=32,
        epochs=60,
        attack_epsilon=0.2,
        attack_strengths=4,
        corruption="gaussian_noise",
        severity=0,
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
