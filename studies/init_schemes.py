"""Which initialisation suits which activation and depth, and is what it costs bias or variance?

Scientific: initialisation, activation, depth.  Fixed: its gain (1), width, learning rate and all else, so that the only
difference between two trials of a depth is how the signal starts.  Source: Glorot & Bengio 2010, He et al. 2015.
Run: python -m lab.study run init_schemes        (--smoke: seconds)
"""

from lab.knobs import INIT_SCHEMES
from lab.spec import Choice, Replication, Study

STUDY = Study(
    question="Which initialisation suits which activation and depth, and is what it costs bias or variance?",
    data="digits",
    space=dict(
        init_scheme=Choice(*INIT_SCHEMES, role="scientific"),
        activation=Choice("relu", "tanh", "sigmoid", role="scientific"),
        depth=Choice(1, 3, 6, role="scientific"),
    ),
    fixed=dict(family="mlp", width=32, optimizer="sgd", learning_rate=0.05, momentum=0.9, batch_size=32, epochs=40),
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=4),
    sampler="grid",
    n_trials=81,
    objective="val_risk",
)
