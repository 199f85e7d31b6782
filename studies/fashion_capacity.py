"""How do bias² and variance of a small convolutional network change with its width, on Fashion-MNIST?

Scientific: width.  Nuisance: learning rate, weight decay.  Fixed: depth, normalisation, epochs, 1,000 training images.
Needs Fashion-MNIST: Debian's package dataset-fashion-mnist, --data-dir, or a network for torchvision's download.
Takes: --smoke 80 s of processor time on one core of an AMD EPYC (n = 1). The whole was not timed: take a GPU.
Run: python -m lab.study run fashion_capacity        (--smoke: minutes on two busy cores)
"""

from lab.spec import Choice, Float, Replication, Study

STUDY = Study(
    question="How do bias² and variance of a small convolutional network change with its width, on Fashion-MNIST?",
    data="fashion_mnist",
    space=dict(
        width=Choice(2, 4, 8, 16, 32, role="scientific"),
        learning_rate=Float(1e-3, 1e-2, log=True),
        weight_decay=Float(1e-5, 1e-2, log=True),
    ),
    fixed=dict(family="cnn", depth=2, norm="batch", optimizer="adamw", batch_size=50, epochs=15, n_train=1000),
    replication=Replication(scheme="disjoint", n_resamples=4, n_inits=4),
    sampler="qmc",
    n_trials=20,
    objective="val_risk",
    n_validation=1000,
    n_test=1000,
)
