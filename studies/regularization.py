"""What do dropout, weight decay and early stopping each do to bias² and to variance?

Variants: none of them (the baseline), each alone at two strengths.  Fixed: a network that learns its training set by
heart, 20 % of whose labels are redrawn; AdamW, so weight decay is decoupled.
Source: Geman et al. 1992, section 3 (regularisation trades bias for variance); Srivastava et al. 2014; Prechelt 1998.
Expected: each lowers variance; bias² rises where it is too strong.
Takes: 54 s of processor time (n = 1, AMD EPYC), which workers share.
Run: python -m lab.study run regularization        (--smoke: seconds)
"""

from lab.spec import Replication, Study

STUDY = Study(
    question="What do dropout, weight decay and early stopping each do to bias² and to variance?",
    data="digits",
    fixed=dict(
        family="mlp",
        depth=2,
        width=128,
        optimizer="adamw",
        learning_rate=1e-3,
        batch_size=32,
        epochs=150,
        n_train=150,
        label_noise=0.2,
    ),
    variants={
        "baseline": {},
        "dropout=0.2": {"dropout": 0.2},
        "dropout=0.5": {"dropout": 0.5},
        "weight_decay=0.3": {"weight_decay": 0.3},
        "weight_decay=3": {"weight_decay": 3.0},
        "patience=3": {"patience": 3},
        "patience=1": {"patience": 1},
    },
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=6),
    n_trials=7,
    objective="val_risk",
    learning_curve=(1.0,),
)
