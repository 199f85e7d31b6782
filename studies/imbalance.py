"""What do rare classes cost in bias² and in variance, and do sampling and class weights give it back?

The baseline has equal classes; two ratios of the most to the least frequent class, and each remedy at each ratio. The
remedies are not crossed: once sampling has made the classes equal, class weights are all 1. Every row is compared with
the baseline in pairs, so a remedy has given back what its ratio alone costs and it does not.
Fixed: the model and the number of training examples that are drawn. The classes of the test set are equally frequent.
Source: Cui et al. 2019 (the profile), Chawla et al. 2002 (SMOTE).
Run: python -m lab.study run imbalance        (--smoke: seconds; sampling="smote" needs imbalanced-learn)
"""

from lab.spec import Replication, Study

STUDY = Study(
    question="What do rare classes cost in bias² and in variance, and do sampling and class weights give it back?",
    data="gaussians",
    fixed=dict(family="mlp", depth=1, width=64, learning_rate=3e-3, epochs=30, n_train=400),
    variants={
        "equal": {},
        "10_nothing": dict(imbalance_ratio=10.0),
        "10_class_weights": dict(imbalance_ratio=10.0, class_weights="balanced"),
        "10_oversample": dict(imbalance_ratio=10.0, sampling="oversample"),
        "10_undersample": dict(imbalance_ratio=10.0, sampling="undersample"),
        "10_smote": dict(imbalance_ratio=10.0, sampling="smote"),
        "50_nothing": dict(imbalance_ratio=50.0),
        "50_class_weights": dict(imbalance_ratio=50.0, class_weights="balanced"),
        "50_oversample": dict(imbalance_ratio=50.0, sampling="oversample"),
        "50_undersample": dict(imbalance_ratio=50.0, sampling="undersample"),
        "50_smote": dict(imbalance_ratio=50.0, sampling="smote"),
    },
    replication=Replication(scheme="fresh", n_resamples=10, n_inits=3),
    n_trials=11,
    objective="val_risk",
    learning_curve=(),
)
