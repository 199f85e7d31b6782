"""What do rare classes cost in bias² and in variance, and do sampling and class weights give it back?

Scientific: the ratio of the most to the least frequent class, how the classes are sampled, class weights in the loss.
Fixed: the model and the number of training examples that are drawn. The classes of the test set are equally frequent.
Source: Cui et al. 2019 (the profile), Chawla et al. 2002 (SMOTE).
Run: python -m lab.study run imbalance        (--smoke: seconds; sampling="smote" needs imbalanced-learn)
"""

from lab.spec import Choice, Replication, Study

STUDY = Study(
    question="What do rare classes cost in bias² and in variance, and do sampling and class weights give it back?",
    data="gaussians",
    space=dict(
        imbalance_ratio=Choice(1.0, 10.0, 50.0, role="scientific"),
        sampling=Choice("none", "oversample", "undersample", "smote", role="scientific"),
        class_weights=Choice("none", "balanced", role="scientific"),
    ),
    fixed=dict(family="mlp", depth=1, width=64, learning_rate=3e-3, epochs=30, n_train=400),
    replication=Replication(scheme="fresh", n_resamples=10, n_inits=3),
    sampler="grid",
    n_trials=24,
    objective="val_risk",
    learning_curve=(),
)
