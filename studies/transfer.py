"""What does pre-training on other classes change: bias, variance, or neither, and at which training-set size?

Networks learn the first five classes; others of their kind then learn the last five from few examples. They start from
drawn weights or from the pre-trained ones, and train all their blocks or (frozen) only a new output layer. Frozen drawn
weights are the control: random features.
Scientific: where a replica starts, what of it is trained, n_train.  Fixed: architecture, epochs, learning rates (tuned
for none of them; at the rate of the blocks a new output layer alone did not get through its 40 training images in 60
epochs).  Each seed has a pre-trained network of its own, so variance by seed includes the chance in that.
Run: python -m lab.study run transfer        (--data 'fashion_mnist[5-9]'; --smoke: seconds)
"""

from lab.spec import Choice, Pretraining, Replication, Study

STUDY = Study(
    question="What does pre-training on other classes change: bias, variance, or neither?",
    data="digits[5-9]",
    pretraining=Pretraining(data="[0-4]", fixed=dict(n_train=5000, epochs=10, learning_rate=3e-3)),
    space=dict(
        n_train=Choice(20, 40, 80, 140, role="scientific"),
        weights=Choice("", "pretraining", role="scientific"),
        frozen=Choice(0.0, 1.0, role="scientific"),
    ),
    fixed=dict(
        family="cnn",
        depth=2,
        width=16,
        new_head=True,
        optimizer="adam",
        learning_rate=3e-3,
        head_rate_factor=10.0,
        batch_size=20,
        epochs=60,
    ),
    replication=Replication(scheme="disjoint", n_resamples=4, n_inits=4, stratified=True),
    sampler="grid",
    n_trials=16,
    n_validation=90,
    n_test=190,
    n_evaluations=8,
    learning_curve=(),
)
