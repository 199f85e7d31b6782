"""Which configuration errs least at an equal number of epochs, with the luck of data and seed averaged out?

A search of two families at once: knobs that only one of them has are searched in its trials alone. A configuration is
judged by the mean over its replicas, and the best is measured again on training sets and seeds that the search never
saw; compare it with the search's own number in the report to see how much of that was luck. A trial that is
significantly worse than the best before its round on their first four training sets stops there (lab.pruning).
Fixed: data, epochs, number of training examples.  Takes: 15 min of processor time (n = 1), which workers share.
Run: python -m lab.study run tune        (--smoke: seconds)
"""

from lab.spec import Choice, Float, Int, Replication, Study

STUDY = Study(
    question="Which configuration errs least at an equal number of epochs, luck of data and seed averaged out?",
    data="digits",
    space=dict(
        family=Choice("mlp", "cnn"),
        depth=Int(1, 3),
        width=Int(16, 256, log=True, when={"family": "mlp"}),
        convolutions=Choice(1, 2, when={"family": "cnn"}),
        activation=Choice("relu", "tanh"),
        norm=Choice("none", "batch"),
        dropout=Float(0.0, 0.5),
        learning_rate=Float(3e-4, 3e-2, log=True),
        weight_decay=Float(1e-5, 1e-1, log=True),
        label_smoothing=Choice(0.0, 0.05),
        init_scheme=Choice("he_normal", "orthogonal"),
        pixel_noise=Float(0.0, 1.0),
    ),
    fixed=dict(optimizer="adamw", batch_size=32, epochs=30, n_train=150),
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=2),
    sampler="tpe",
    n_trials=32,
    objective="val_risk",
    prune=0.1,
)
