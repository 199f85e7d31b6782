"""How much of the variance does label noise cause, and on which width does it act?

Scientific: share of redrawn labels, width.  Fixed: everything else; three draws of the noise on the same images.
Source: Adlam & Pennington 2020, "Understanding double descent requires a fine-grained bias-variance decomposition"
(the noise of the labels as a third cause, with its interactions), there for random features.
Expected: none of it at a share of 0 (a check); it grows with the share, and most near the width that just fits.
Takes: 42 s of processor time (n = 1, AMD EPYC), which workers share.
Run: python -m lab.study run label_noise        (--smoke: seconds)
"""

from lab.spec import Choice, Replication, Study

STUDY = Study(
    question="How much of the variance does label noise cause, and on which width does it act?",
    data="digits",
    space=dict(
        label_noise=Choice(0.0, 0.1, 0.2, 0.4, role="scientific"),
        width=Choice(4, 16, 64, role="scientific"),
    ),
    fixed=dict(family="mlp", depth=2, optimizer="adamw", learning_rate=3e-3, batch_size=32, epochs=100, n_train=150),
    replication=Replication(scheme="disjoint", n_resamples=6, n_inits=3, n_noise_draws=3),
    sampler="grid",
    n_trials=12,
    objective="val_risk",
    learning_curve=(1.0,),
)
