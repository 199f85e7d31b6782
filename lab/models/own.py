"""A network of one's own: any torch.nn.Module, trained as a stack of R copies.

`register(name, build)` makes a family of a function `build(image_shape, n_classes, config) -> nn.Module`; a study file
just defines the function and names it, `family="net"`. What the module does:

* Its forward takes images (B, C, H, W) and returns logits (B, n_classes); `train()` and `eval()` are set as usual.
* Parameters that require a gradient are trained. The others, and buffers, are what it starts from, replica by replica;
  a forward changes them in place, as batch normalisation does with its running statistics.
* Weights and biases of linear and convolutional layers are drawn by `init_scheme`, and everything else is what the
  module gives itself when it is built, with torch's random numbers, which then come from the replica's init stream.
  With `init_scheme="own"` that holds for all of it.
* The masks of nn.Dropout come from the replica's dropout stream. A forward that draws random numbers itself is refused.
* A knob that `build` does not read from `config` (`width`, `norm` …) has no effect on it.

The R copies run as one program by `torch.func.vmap` where that gives the same numbers. It cannot where Python decides
on values of tensors: then the copies run one after the other, and `why_alone` says why.

Shape suffixes: R replicas, B batch, P parameters; images are CHW.
"""

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lab.errors import one_line
from lab.knobs import TrialConfig
from lab.models.initialization import Array, initial_values
from lab.models.layers import Dropout, Network, Parameter, Tensors

Build = Callable[..., nn.Module]
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ELEMENTWISE, CHANNELWISE = (nn.Dropout,), (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
TRIED = (2, 3)  # images of the two trial runs that show how the shapes of dropout masks grow with the batch
CLOSE = 1e-3  # largest difference, in float32, of stacked logits from those one by one, beside the largest of them


class Masked(nn.Module):
    """Stands in a module where its dropout stood, and multiplies by the masks that it is handed."""

    def __init__(self, rate: float, elementwise: bool, handed: "list[Iterator[Tensor]]") -> None:
        super().__init__()
        self.rate, self.elementwise, self._handed = rate, elementwise, handed

    def forward(self, x: Tensor) -> Tensor:
        """Return x in evaluation, else x times the next mask."""
        if not self.training:
            return x
        mask = next(self._handed[0], None)
        if mask is None or mask.dim() != x.dim():
            raise ValueError("its dropout is not called at each step as it is at the first: call it the same way")
        return x * mask


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a dropout in a forward: its rate, and its mask's dimensions, of which some grow with the batch."""

    rate: float
    an_image: tuple[int, ...]  # dimension = an_image · B + constant
    constant: tuple[int, ...]

    def shape(self, n_images: int) -> tuple[int, ...]:
        """Return the shape of its mask for so many images."""
        return tuple(slope * n_images + rest for slope, rest in zip(self.an_image, self.constant, strict=True))


class Own(Network):
    """R copies of a module.

    Attributes:
        why_alone: What keeps the copies from running as one program; None if nothing does.
    """

    is_own = True

    def __init__(
        self, name: str, build: Build, config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int
    ) -> None:
        """Build the module once, and try it out.

        Raises:
            ValueError: `build` fails, what it returns is no module or cannot be trained, or its forward fails, draws
                random numbers, or does not return logits.
        """
        super().__init__(config)
        self.n_blocks = 1
        self._name, self._build, self._image_shape = name, build, image_shape
        self._arguments = {"image_shape": image_shape, "n_classes": n_classes, "config": config}
        self._handed: list[Iterator[Tensor]] = [iter(())]  # masks of the dropout calls of the forward that is running
        self._module = self._drawn(0)
        self.parameters = list(_parameters(self._module))
        self.buffers = {name: tuple(value.shape) for name, value in _state(self._module).items()}
        if not self.parameters:
            raise self._error("the module has no parameter that requires a gradient: give it one to train")
        self._check_logits(n_classes)
        self._calls = self._dropout_calls()
        self._check_use()
        self.why_alone = self._why_not_stacked()

    def _error(self, text: str) -> ValueError:
        return ValueError(f"family {self._name!r}: {text}")

    def _drawn(self, seed: int) -> nn.Module:
        """Return a module that has initialised itself from this seed; torch's own stream is left as it was."""
        before = torch.random.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            taken = inspect.signature(self._build).parameters
            takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
            module = self._build(**{k: v for k, v in self._arguments.items() if takes_all or k in taken})
            if isinstance(module, nn.Module) and any(map(nn.parameter.is_lazy, module.parameters())):
                module.eval()(torch.zeros(TRIED[0], *self._image_shape))  # lazy layers take their shapes from this
        except Exception as error:
            raise self._error(f"building the module: {type(error).__name__}: {one_line(error)}") from error
        finally:
            torch.random.set_rng_state(before)
        if not isinstance(module, nn.Module):
            raise self._error(f"the function returned {type(module).__name__}: return a torch.nn.Module")
        for parent in list(module.modules()):
            for name, child in parent.named_children():
                if isinstance(child, ELEMENTWISE + CHANNELWISE):
                    if child.p == 1:
                        raise self._error("nn.Dropout(1.0) drops everything: give a rate below 1")
                    setattr(parent, name, Masked(child.p, isinstance(child, ELEMENTWISE), self._handed))
        return module

    def _images(self, n: int) -> Tensor:
        return torch.randn(n, *self._image_shape, generator=torch.Generator().manual_seed(0))

    def _tried(self, module: nn.Module, images: Tensor) -> Tensor:
        """Return what the forward of a module gives, whatever is wrong with it in one line."""
        before = torch.random.get_rng_state()
        try:
            logits: Tensor = module(images)
        except Exception as error:
            raise self._error(
                f"its forward fails on images {tuple(images.shape)}: {type(error).__name__}: {one_line(error)}"
            ) from error
        if not torch.equal(before, torch.random.get_rng_state()):
            torch.random.set_rng_state(before)
            raise self._error(
                "its forward draws random numbers, which are then not those of a replica: take nn.Dropout, "
                "nn.Dropout1d, 2d or 3d as modules, and the augmentation knobs"
            )
        return logits

    def _check_logits(self, n_classes: int) -> None:
        sizes: list[int] = []

        def note(_module: nn.Module, _given: Any, result: Any) -> None:
            if isinstance(result, Tensor) and len(result):
                sizes.append(result[0].numel())

        module, images = copy.deepcopy(self._module).eval(), self._images(TRIED[0])
        for part in module.modules():
            part.register_forward_hook(note)
        with torch.no_grad():
            logits = self._tried(module, images)
        if not isinstance(logits, Tensor) or logits.shape != (len(images), n_classes):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise self._error(
                f"for images {tuple(images.shape)} the module returns {got}: return logits ({len(images)}, {n_classes})"
            )
        self.widest = max(images[0].numel(), *sizes)

    def _dropout_calls(self) -> list[Call]:
        found: list[list[tuple[float, tuple[int, ...]]]] = []

        def note(masked: nn.Module, given: tuple[Tensor, ...]) -> None:
            assert isinstance(masked, Masked)
            (x,) = given
            shape = x.shape if masked.elementwise else (*x.shape[:2], *[1] * (x.dim() - 2))
            found[-1].append((masked.rate, tuple(shape)))
            masked._handed[0] = iter((torch.ones(shape),))

        for n in TRIED:
            module = copy.deepcopy(self._module).train()
            for part in module.modules():
                if isinstance(part, Masked):
                    part.register_forward_pre_hook(note)
            found.append([])
            self._tried(module, self._images(n))
        few, more = found
        calls = []
        if len(few) == len(more):
            for (rate, first), (_, second) in zip(few, more, strict=True):
                an_image = tuple(b - a for a, b in zip(first, second, strict=True))
                constant = tuple(a - TRIED[0] * s for a, s in zip(first, an_image, strict=True))
                calls.append(Call(rate, an_image, constant))
        return calls

    def _masks(self, dropout: Dropout | None, like_RBCHW: Tensor) -> list[Tensor]:
        """Return the mask of every dropout call, each (R, …)."""
        if dropout is None:
            return []
        R, B = like_RBCHW.shape[:2]
        ones = ((call.rate, like_RBCHW.new_ones(R, *call.shape(B))) for call in self._calls)
        return [dropout(k, one, rate) for k, (rate, one) in enumerate(ones)]

    def _check_use(self) -> None:
        """Raise an error if a parameter is not used, or if the forward puts another tensor in a buffer's place."""
        module, images = copy.deepcopy(self._module).train(), self._images(TRIED[0])
        buffers = dict(module.named_buffers())
        masked = [part for part in module.modules() if isinstance(part, Masked)]
        masks = iter([torch.ones(call.shape(TRIED[0])) for call in self._calls])
        for part in masked:
            part._handed[0] = masks
        logits = self._tried(module, images)
        for name, value in module.named_buffers():
            if value is not buffers[name]:
                raise self._error(f"its forward replaces the buffer {name}: change it in place, e.g. with copy_")
        weights = [module.get_parameter(p.name) for p in self.parameters]
        gradients = torch.autograd.grad(logits.sum(), weights, allow_unused=True)
        unused = [p.name for p, gradient in zip(self.parameters, gradients, strict=True) if gradient is None]
        if unused:
            raise self._error(
                f"the logits do not depend on {', '.join(unused[:3])}: leave it out, or requires_grad_(False)"
            )

    def _why_not_stacked(self) -> str | None:
        """Return what keeps vmap from training the module as it is trained alone, None if nothing does."""
        n = TRIED[0]
        modules = [self._drawn(seed) for seed in range(n)]
        weights = {p.name: torch.stack([m.get_parameter(p.name).detach() for m in modules]) for p in self.parameters}
        buffers = {name: torch.stack([_state(m)[name] for m in modules]) for name in self.buffers}
        images = torch.stack([self._images(n), -self._images(n)])
        self._module.train()
        results = []
        try:
            for run in (self._one_by_one, self._stacked):
                own = {name: value.clone() for name, value in buffers.items()}
                masks = self._masks(lambda k, x, rate: x, images)
                logits = run({name: value.requires_grad_() for name, value in weights.items()}, own, images, masks)
                results.append([logits, *torch.autograd.grad(logits.square().sum(), list(weights.values()))])
                results[-1] += [value for value in own.values() if value.is_floating_point()]
        except Exception as error:  # whatever vmap raises for what it cannot do
            return one_line(error).partition(". ")[0]
        for alone, stacked in zip(*results, strict=True):
            if (alone - stacked).abs().max() > CLOSE * alone.abs().max().clamp_min(1.0):
                return "torch.func.vmap gives other numbers for it"
        return None

    def initial(self, scheme: str, gain: float, rng: np.random.Generator) -> tuple[Array, dict[str, Tensor]]:
        """Return weights (P,) and buffers that one replica starts from, see `Network.initial`."""
        module = self._drawn(int(rng.integers(2**63)))
        values = []
        for parameter in self.parameters:
            own = module.get_parameter(parameter.name).detach()
            if scheme == "own" or parameter.kind not in ("weight", "bias"):
                value = own.to(torch.float64).numpy() * (gain if parameter.kind == "weight" else 1.0)
            else:
                value = _by_scheme(parameter, scheme, gain, rng)
            values.append(value.ravel())
        return np.concatenate(values), _state(module)

    def statistics_momentum(self, buffer: str) -> float | None:
        """Return the momentum of a running mean or variance, None of another buffer."""
        layer = self._module.get_submodule(buffer.rpartition(".")[0])
        is_statistic = buffer.rpartition(".")[2] in ("running_mean", "running_var")
        return getattr(layer, "momentum", None) if is_statistic else None

    def enter(self, images_RBCHW: Tensor) -> Tensor:
        """Return the images as they are."""
        return images_RBCHW

    def block(self, k: int, x: Tensor, weights: Tensors, buffers: Tensors, dropout: Dropout | None) -> Tensor:
        """Return the logits of images x: all of the module is one block."""
        self._module.train(dropout is not None)
        run = self._stacked if self.why_alone is None and len(x) > 1 else self._one_by_one
        return run(weights, buffers, x, self._masks(dropout, x))

    def flat(self, x: Tensor) -> Tensor:
        """Return the logits as they are."""
        return x

    def head(self, x: Tensor, weights: Tensors) -> Tensor:
        """Return the logits as they are."""
        return x

    def _one_by_one(self, weights: Tensors, buffers: Tensors, images_RBCHW: Tensor, masks: list[Tensor]) -> Tensor:
        logits = []
        for r, images_BCHW in enumerate(images_RBCHW):
            state = {name: value[r] for name, value in (*weights.items(), *buffers.items())}
            self._handed[0] = iter([mask[r] for mask in masks])
            logits.append(functional_call(self._module, state, (images_BCHW,)))
        return torch.stack(logits)

    def _stacked(self, weights: Tensors, buffers: Tensors, images_RBCHW: Tensor, masks: list[Tensor]) -> Tensor:
        def one(state: dict[str, Tensor], images_BCHW: Tensor, masks: list[Tensor]) -> Tensor:
            self._handed[0] = iter(masks)
            return functional_call(self._module, state, (images_BCHW,))

        return vmap(one, randomness="error")({**weights, **buffers}, images_RBCHW, masks)


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return all that a module holds and is not trained: buffers, and parameters without gradient."""
    frozen = {name: value.detach() for name, value in module.named_parameters() if not value.requires_grad}
    return frozen | dict(module.named_buffers())


def _parameters(module: nn.Module) -> Iterator[Parameter]:
    for name, value in module.named_parameters():
        if not value.requires_grad:
            continue
        path, _, what = name.rpartition(".")
        layer, shape = module.get_submodule(path), tuple(value.shape)
        weight = getattr(layer, "weight", None)
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)) and what in ("weight", "bias") and isinstance(weight, Tensor):
            receptive = prod(weight.shape[2:])
            fan_in, fan_out = weight.shape[1] * receptive, weight.shape[0] * receptive
            yield Parameter(name, shape, "weight" if what == "weight" else "bias", fan_in, fan_out)
        else:
            yield Parameter(name, shape, "own", value.numel(), value.numel())


def _by_scheme(parameter: Parameter, scheme: str, gain: float, rng: np.random.Generator) -> Array:
    """Return the initial value of a weight or bias; a weight is drawn as the lab stores it, then turned."""
    shape = parameter.shape
    if parameter.kind == "bias":
        return initial_values([parameter], scheme, gain, rng)
    if len(shape) == 2:
        drawn = initial_values([dataclasses.replace(parameter, shape=shape[::-1])], scheme, gain, rng)
        return drawn.reshape(shape[::-1]).T
    flat = dataclasses.replace(parameter, shape=(*shape[:2], prod(shape[2:]), 1))
    return initial_values([flat], scheme, gain, rng)
