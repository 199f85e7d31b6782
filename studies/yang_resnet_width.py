"""Is the variance of a residual network unimodal in its width, and its bias² monotone, on CIFAR-10?

Scientific: width of the first stage.  Fixed: ResNet-18 (He et al. 2016), SGD with momentum, weight decay, flips and
shifts, training sets of 10,000 images; two partitions of the pool into four.
Source: Yang et al. 2020, "Rethinking bias-variance trade-off for generalization of neural networks", figure 1: ResNet
width on CIFAR-10, squared error on probabilities, training sets of disjoint splits.
Expected: bias² falls with width; variance rises, then falls.
Needs CIFAR-10 (binary edition) and a GPU. It was not run yet: no time is known.
Run: python -m lab.study run yang_resnet_width --data-dir DIR        (--smoke: a small version)
"""

from lab.spec import Choice, Replication, Study

STUDY = Study(
    question="Is the variance of a residual network unimodal in its width, and its bias² monotone, on CIFAR-10?",
    data="cifar10",
    space=dict(width=Choice(2, 4, 8, 12, 16, 24, 32, 48, 64, role="scientific")),
    fixed=dict(
        family="resnet",
        depth=2,
        norm="batch",
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.1,
        schedule="step",
        weight_decay=5e-4,
        batch_size=128,
        epochs=200,
        n_train=10_000,
        flip=0.5,
        shift=0.125,
    ),
    replication=Replication(scheme="disjoint", n_resamples=8, n_inits=2, n_partitions=2),
    sampler="grid",
    n_trials=9,
    objective="val_risk",
    learning_curve=(1.0,),
    n_test=10_000,
    n_evaluations=6,
)
