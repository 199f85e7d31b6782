"""The knobs of a trial: every field of `TrialConfig` can be searched, swept or fixed by any study.

A knob is one line: its type, its default, and its options or bounds. The command line, MLflow, the run history and the
report take it from here.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from lab.errors import SpecError

Value = bool | int | float | str

FAMILIES = ("mlp", "cnn", "resnet", "pretrained")
BACKBONES = ("resnet18", "resnet50", "vgg16", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")
ACTIVATIONS = ("relu", "tanh", "sigmoid", "gelu", "leaky_relu", "elu")
NORMS = ("none", "batch", "group", "layer")
POOLINGS = ("max", "average")
RESIDUALS = ("auto", "on", "off")
INIT_SCHEMES = (
    "he_normal", "he_uniform", "xavier_normal", "xavier_uniform", "lecun_normal",
    "orthogonal", "normal", "uniform", "torch_default",
)  # fmt: skip
OPTIMIZERS = ("sgd", "adam", "adamw")
CORRUPTION_KINDS = (
    "none", "gaussian_noise", "shot_noise", "impulse_noise", "blur", "defocus_blur", "motion_blur", "fog",
    "contrast", "brightness", "pixelate", "jpeg",
)  # fmt: skip
NORMALIZATIONS = ("training", "none")
SAMPLINGS = ("none", "oversample", "undersample", "smote")
PRECISIONS = ("float32", "tf32", "bf16")
SCHEDULES = ("constant", "cosine", "step", "one_cycle")
LOSSES = ("cross_entropy", "brier", "focal")
CLASS_WEIGHTS = ("none", "balanced")
AVERAGINGS = ("none", "ema", "swa")
ATTACKS = ("none", "fgsm", "pgd")


def _option(default: str, options: tuple[str, ...], *, own: bool = False) -> Any:
    """Return the field of a knob that takes one of these strings, or else the name of a function of the study file."""
    return dataclasses.field(default=default, metadata={"options": options, "own": own})


def _number(default: float, low: float, high: float) -> Any:
    """Return the field of a numeric knob; the bounds, inclusive, are generous: they catch slips of the keyboard."""
    return dataclasses.field(default=default, metadata={"bounds": (low, high)})


@dataclass(frozen=True)
class TrialConfig:
    """One hyperparameter configuration: all that fixes how a replica is trained, except its data and its seed.

    Units: `learning_rate` and `weight_decay` as in torch.optim (`weight_decay` is coupled, i.e. an L2 penalty added to
    the gradient, for `sgd` and `adam`, and decoupled for `adamw`); `dropout` is the probability that a hidden unit is
    zeroed; `n_train` counts examples; `epochs` counts passes over them.
    """

    family: str = _option("mlp", FAMILIES, own=True)  # or a function that returns a module, see lab.models.own
    depth: int = _number(2, 0, 64)  # hidden layers (mlp), blocks (cnn), blocks a stage (resnet); 0 is a linear model
    width: int = _number(64, 1, 16384)  # hidden units (mlp), channels (cnn, first stage of a resnet)
    activation: str = _option("relu", ACTIVATIONS)
    norm: str = _option("none", NORMS)  # between the linear map and the activation
    pooling: str = _option("max", POOLINGS)  # cnn only
    convolutions: int = _number(1, 1, 8)  # cnn only: in a row before each pooling; 2 or 3 as in VGG
    residual: str = _option("auto", RESIDUALS)  # layers add their input; auto: on for resnet, off for mlp and cnn
    dropout: float = _number(0.0, 0.0, 0.95)
    spatial_dropout: float = _number(0.0, 0.0, 0.95)  # the same of whole channels; cnn and resnet
    init_scheme: str = _option("he_normal", (*INIT_SCHEMES, "own"))  # own: as a module of the study file draws itself
    init_gain: float = _number(1.0, 0.0, 100.0)  # multiplies the standard deviation of the initial weights
    backbone: str = _option("resnet18", BACKBONES)  # pretrained only: whose trunk, see lab.models.pretrained
    weights: str = ""  # to start from: a folder of export-weights (seed i takes replica i modulo n), or a file
    new_head: bool = False  # the output layer is drawn all the same, e.g. for other classes
    frozen: float = _number(0.0, 0.0, 1.0)  # share of the blocks, from the first on, that stay as they are
    head_rate_factor: float = _number(1.0, 0.0, 1e6)  # multiplies the learning rate of the output layer
    optimizer: str = _option("adam", OPTIMIZERS)
    learning_rate: float = _number(1e-3, 1e-9, 100.0)
    momentum: float = _number(0.9, 0.0, 0.9999)  # sgd only
    nesterov: bool = False  # sgd only
    weight_decay: float = _number(0.0, 0.0, 10.0)
    schedule: str = _option("constant", SCHEDULES)
    clip_norm: float = _number(0.0, 0.0, 1e6)  # largest norm of a replica's gradient; 0: not clipped
    patience: int = _number(0, 0, 10_000)  # evaluations without a lower validation risk until it stops; 0: never
    loss: str = _option("cross_entropy", LOSSES)
    label_smoothing: float = _number(0.0, 0.0, 1.0)  # share of the target that goes to all classes alike
    focal_gamma: float = _number(2.0, 0.0, 20.0)  # exponent of the loss "focal"
    class_weights: str = _option("none", CLASS_WEIGHTS)  # balanced: by the counts of the replica's own training set
    l1: float = _number(0.0, 0.0, 10.0)  # factor of the sum of |weights and biases| in the loss
    averaging: str = _option("none", AVERAGINGS)  # of the weights; what is evaluated is their average
    ema_decay: float = _number(0.99, 0.0, 0.999999)  # a step, of the averaging "ema"
    swa_start: float = _number(0.75, 0.0, 1.0)  # fraction of the epochs after which the averaging "swa" begins
    adversarial: str = _option("none", ATTACKS)  # training on attacked images
    epsilon: float = _number(0.05, 0.0, 1.0)  # largest change of a pixel (of 0 to 1) in adversarial training
    attack_epsilon: float = _number(0.0, 0.0, 1.0)  # the same, of the attack that the test images are put to; 0: none
    attack_strengths: int = _number(1, 1, 10)  # so many attacks, evenly up to attack_epsilon, each measured by itself
    corruption: str = _option("none", CORRUPTION_KINDS)  # of the test images, which are measured with and without it
    severity: int = _number(3, 0, 5)  # of the corruption; 0: all five, each measured by itself
    batch_size: int = _number(32, 1, 65536)
    epochs: int = _number(60, 1, 100_000)
    precision: str = _option("float32", PRECISIONS)  # of products; see lab.training.precision
    n_train: int = _number(150, 1, 10_000_000)
    resize: int = _number(0, 0, 1024)  # pixels of the shorter side of all images; 0: as they are
    # training: by mean and standard deviation of the replica's own training set; none: pixels stay between 0 and 1,
    # pixel_noise is then in their units, and what cutout takes away is black
    normalize: str = _option("training", NORMALIZATIONS)
    flip: float = _number(0.0, 0.0, 1.0)  # augmentation: share of the images with left and right exchanged
    shift: float = _number(0.0, 0.0, 0.5)  # largest shift in each direction, as a share of the shorter side
    rotation: float = _number(0.0, 0.0, 180.0)  # largest angle in degrees, either way
    zoom: float = _number(0.0, 0.0, 0.9)  # largest change of size, as a share, either way
    brightness: float = _number(0.0, 0.0, 1.0)  # largest change of the factor on pixel values, either way
    contrast: float = _number(0.0, 0.0, 1.0)  # the same for distances from the mean of the image
    pixel_noise: float = _number(0.0, 0.0, 10.0)  # Gaussian, in standard deviations of the training pixels
    cutout: float = _number(0.0, 0.0, 1.0)  # side of the square that is cut out, as a share of the shorter side
    mixup: float = _number(0.0, 0.0, 100.0)  # α of Beta(α, α), from which the share of an image in a mixture comes
    imbalance_ratio: float = _number(1.0, 1.0, 10_000.0)  # first class to last in a training set, exponential between
    sampling: str = _option("none", SAMPLINGS)  # brings the classes of a training set to equal counts
    label_noise: float = _number(0.0, 0.0, 1.0)  # share of the training labels that is redrawn, evenly over the classes
    noisy_targets: bool = False  # decompose for labels with that noise, instead of for the clean ones

    def __post_init__(self) -> None:
        for knob in dataclasses.fields(self):
            value = check_knob(knob.name, getattr(self, knob.name), where="TrialConfig")
            object.__setattr__(self, knob.name, value)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Return the configuration written down by `dataclasses.asdict` (unknown knobs are an error)."""
        for name in values:
            known_knob(name, where="TrialConfig")
        return cls(**values)


KNOBS: Mapping[str, type[Any]] = MappingProxyType({f.name: type(f.default) for f in dataclasses.fields(TrialConfig)})
_METADATA = {f.name: f.metadata for f in dataclasses.fields(TrialConfig)}


def known_knob(name: str, where: str, also: Iterable[str] = ()) -> None:
    """Raise a SpecError if there is no knob of this name; `also` are other names that may be meant."""
    if not isinstance(name, str):
        raise SpecError(f"{where}: {name!r} is not the name of a knob: give one of {', '.join(sorted(KNOBS)[:4])} …")
    if name not in KNOBS:
        close = [
            knob for knob in KNOBS if "_" in knob and "".join(word[0] for word in knob.split("_")) == name
        ]  # lr, wd
        close = close or get_close_matches(name, [*KNOBS, *also], n=4)
        close = close or [knob for knob in KNOBS if knob.startswith(name[:3])]
        close = close or [knob for knob in KNOBS if set(knob) >= set(name)] or sorted(KNOBS)
        raise SpecError(f"{where}: unknown knob {name!r}: did you mean {', '.join(close[:4])}?")


def check_knob(name: str, value: Any, *, where: str) -> Value:
    """Return the value of a knob in its own type (an int given for a float becomes a float).

    Raises:
        SpecError: Unknown knob, wrong type, not finite, out of bounds or not one of the options.
    """
    known_knob(name, where)
    kind = KNOBS[name]
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise SpecError(f"{where}: {name} = {value!r} has the wrong type: give {_article(kind)}")
    limits = _METADATA[name]
    if "options" in limits and value not in limits["options"] and not (limits["own"] and value.isidentifier()):
        raise SpecError(f"{where}: {name} = {value!r} is unknown: choose one of {', '.join(limits['options'])}")
    if "bounds" in limits:
        low, high = limits["bounds"]
        if not math.isfinite(value) or not low <= value <= high:
            raise SpecError(f"{where}: {name} = {value!r} is out of range: give {low:g} to {high:g}")
    return value


def _article(kind: type) -> str:
    return {int: "an integer", float: "a number", str: "a string", bool: "True or False"}[kind]


def parse_knob(name: str, text: str, *, where: str = "--set") -> Value:
    """Return the value of a knob written on a command line, e.g. ("width", "64") → 64.

    Raises:
        SpecError: Unknown knob, or the text is not a value of its type.
    """
    known_knob(name, where)
    return check_knob(name, parsed(name, text, KNOBS[name], where=where), where=where)


def parsed(name: str, text: str, kind: type[Any], *, where: str) -> Value:
    """Return a value of one of the four types of knobs from its text.

    Raises:
        SpecError: The text is not a value of the type.
    """
    try:
        value: Value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise SpecError(f"{where}: {name} = {text!r} has the wrong type: give {_article(kind)}") from None
    return value
