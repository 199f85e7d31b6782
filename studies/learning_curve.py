"""Would more data help, and which part of the error would it lower?

Scientific: n_train.  Nuisance: learning rate.  Fixed: architecture, regularisation, epochs (so small training sets take
fewer steps).  Smaller training sets are the first examples of the larger ones, so sizes compare in pairs.
Run: python -m lab.study run learning_curve        (--smoke: seconds)
"""

from lab.spec import Choice, Float, Replication, Study

STUDY = Study(
    question="Would more data help, and which part of the error would it lower?",
    data="digits",
    space=dict(
        n_train=Choice(20, 28, 40, 57, 80, 113, 150, role="scientific"),
        learning_rate=Float(1e-3, 1e-2, log=True, n_grid=3),
    ),
    fixed=dict(family="mlp", depth=2, width=64, optimizer="adamw", batch_size=16, epochs=60),
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=4),
    sampler="grid",
    n_trials=21,
    objective="val_risk",
)
