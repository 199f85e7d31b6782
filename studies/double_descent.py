"""Where does variance peak when a network grows past the size that fits its training set?

Scientific: width of an MLP 40-h-h-10.  Fixed: MNIST-1D, 4,000 training curves with 15 % of the labels redrawn, SGD.
Source: Prince 2023, Understanding Deep Learning, section 8.4 (the setting); Yang et al. 2020, figure 1 (the parts).
Expected: bias² falls all the way; variance, and with it the risk, peaks about where the training error reaches 0, most
of it interaction of training set and seed; then both fall.
Needs the package mnist1d. Takes: with --set n_train=1000 --set epochs=200 11 minutes on one busy CPU core (n = 1); with
seven of the widths and 12 of the 20 replicas, all else as here, 8 minutes of one core's time (n = 1; LOG.md).
Run: python -m lab.study run double_descent        (--smoke: seconds, after the data are generated)
"""

from lab.spec import Choice, Replication, Study

STUDY = Study(
    question="Where does variance peak when a network grows past the size that fits its training set?",
    data="mnist1d",
    space=dict(width=Choice(2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, role="scientific")),
    fixed=dict(
        family="mlp",
        depth=2,
        activation="relu",
        optimizer="sgd",
        momentum=0.9,
        learning_rate=0.01,
        batch_size=100,
        epochs=400,
        n_train=4000,
        label_noise=0.15,
    ),
    replication=Replication(scheme="disjoint", n_resamples=5, n_inits=4),
    sampler="grid",
    n_trials=12,
    objective="val_risk",
    learning_curve=(1.0,),
    n_evaluations=8,
)
