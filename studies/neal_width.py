"""Does a wider network vary less, and with what: its seed, or its training set?

Scientific: width of a network with one hidden layer.  Fixed: 100 training images, SGD, trained to the end.
Source: Neal et al. 2018, "A modern take on the bias-variance tradeoff in neural networks", figures 1 and 2 (their small
data: 100 images of MNIST; here the digits of scikit-learn, --data mnist for theirs).
Expected: bias² and total variance fall with width; the part of the variance from the seed falls towards 0, that from
the training set does not.
Takes: 11 minutes on one busy CPU core (n = 1).
Run: python -m lab.study run neal_width        (--smoke: seconds)
"""

from lab.spec import Choice, Replication, Study

STUDY = Study(
    question="Does a wider network vary less, and with what: its seed, or its training set?",
    data="digits",
    space=dict(width=Choice(2, 4, 8, 16, 32, 64, 128, 256, 512, role="scientific")),
    fixed=dict(
        family="mlp",
        depth=1,
        activation="relu",
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.05,
        batch_size=20,
        epochs=200,
        n_train=100,
    ),
    replication=Replication(scheme="disjoint", n_resamples=12, n_inits=8),
    sampler="grid",
    n_trials=9,
    objective="val_risk",
    learning_curve=(1.0,),
)
