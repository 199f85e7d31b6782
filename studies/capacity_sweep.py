"""Does variance rise, then fall, as a network grows?

Scientific: width, depth.  Nuisance: learning rate, batch size, dropout, weight decay, initialisation and its gain.
Fixed: data, number of training examples, epochs, optimiser.  Source: Neal et al. 2018, Yang et al. 2020.
Run: python -m lab.study run capacity_sweep        (--smoke: seconds)
"""

from lab.spec import Choice, Float, Int, Replication, Study

STUDY = Study(
    question="Does variance rise, then fall, as a network grows?",
    data="digits",
    space=dict(
        depth=Int(1, 4, role="scientific"),
        width=Int(4, 256, log=True, role="scientific"),
        learning_rate=Float(3e-4, 3e-2, log=True),
        batch_size=Choice(16, 32, 64),
        dropout=Float(0.0, 0.5),
        weight_decay=Float(1e-6, 1e-2, log=True),
        init_scheme=Choice("he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal", "orthogonal"),
        init_gain=Float(0.5, 2.0, log=True),
    ),
    fixed=dict(family="mlp", activation="relu", optimizer="adamw", epochs=60, n_train=150),
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=4),
    sampler="qmc",
    n_trials=40,
    objective="val_risk",
)
