"""Networks of torchvision as trunks: their blocks, a mean over pixels, and a linear classifier of one's own classes.

The published weights are read from a safetensors file that `weights` names, with `new_head=True`. torchvision gives
them as pickles, which are not opened here; the README says how to turn them into such a file.

`depth`, `width`, `norm` and `activation` have no effect.

Shape suffixes: R replicas, B batch; images are CHW.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lab.knobs import TrialConfig
from lab.models.layers import Dropout, Network, Parameter, Tensors
from lab.weights import torch_name

SMALLEST = 32  # pixels a side: all of them halve maps five times
STEM = ("conv1", "bn1", "relu", "maxpool")  # of a resnet


class Pretrained(Network):
    """R copies of a trunk of torchvision, `backbone`.

    Blocks are the stem and the stages of a resnet, what lies between two poolings of vgg16, and each of the `features`
    of the others.

    Batch norms use the statistics that they came with, in training too: those of small training sets are worse, and the
    replicas of a trial differ less. Grey images become three equal channels, and small ones are enlarged to 32 pixels.
    Dropout acts on the maps of the last block, if it is trained.
    """

    why_alone = "the blocks of torchvision are computed one replica after the other"
    where_weights = "give a safetensors file of torchvision's as weights, with new_head=True (see the README)"
    other_heads = ("fc.", "classifier.")

    def __init__(self, config: TrialConfig, image_shape: tuple[int, int, int], n_classes: int) -> None:
        super().__init__(config)
        self._stages: list[nn.Module] = []
        self._names: list[dict[str, str]] = []  # of each block: the lab's name of a tensor → its name in the block
        x = torch.zeros(1, 3, *enlarged(image_shape[1:]), device="meta")
        sizes = [x.numel()]

        def note(_module: nn.Module, _given: object, result: Tensor) -> None:
            sizes.append(result.numel())

        for prefix, stage in stages(config.backbone):
            self.n_blocks += 1
            self._stages.append(stage)
            self._names.append({})
            hooks = [part.register_forward_hook(note) for part in stage.modules()]
            x = stage(x)
            for hook in hooks:
                hook.remove()
            for path, layer in stage.named_modules():
                self._declare_layer(f"{prefix}{path}", path, layer)
        self.widest = max(sizes)
        self.add_weight("output", (x.shape[1], n_classes), fan_in=x.shape[1], fan_out=n_classes, n_bias=n_classes)

    def _declare_layer(self, name: str, path: str, layer: nn.Module) -> None:
        """Declare the tensors of a convolution or a batch norm; other layers have none."""
        if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
            return
        if isinstance(layer, nn.Conv2d):
            n_out, n_in, height, width = shape = tuple(layer.weight.shape)
            fan_in, fan_out = n_in * height * width, n_out * height * width
            self._declare(Parameter(f"{name}.weight", shape, "weight", fan_in, fan_out))
            if layer.bias is not None:
                self._declare(Parameter(f"{name}.bias", (n_out,), "bias", fan_in, fan_out))
        else:
            n = layer.num_features
            self._declare(Parameter(f"{name}.scale", (n,), "scale", n, n))
            self._declare(Parameter(f"{name}.shift", (n,), "shift", n, n))
            for statistic in (f"{name}.mean", f"{name}.var"):
                self.buffers[statistic] = (n,)
                self._block_of[statistic] = self.n_blocks - 1
        own = [
            tensor for tensor in (*(p.name for p in self.parameters), *self.buffers) if tensor.startswith(f"{name}.")
        ]
        self._names[-1] |= {tensor: f"{path}.{torch_name(tensor).rpartition('.')[2]}" for tensor in own}

    def enter(self, images_RBCHW: Tensor) -> Tensor:
        """Return images in three channels and of 32 pixels a side at least; what comes of a block stays as it is."""
        if images_RBCHW.dim() == 3 or images_RBCHW.shape[2] not in (1, 3):
            return images_RBCHW
        x = images_RBCHW.expand(-1, -1, 3, -1, -1)
        size = enlarged(tuple(x.shape[3:]))
        if size == tuple(x.shape[3:]):
            return x
        return F.interpolate(x.flatten(0, 1), size=size, mode="bilinear", antialias=True).unflatten(0, x.shape[:2])

    def block(self, k: int, x: Tensor, weights: Tensors, buffers: Tensors, dropout: Dropout | None) -> Tensor:
        """Return what block k makes of x (R, B, C, H, W)."""
        tensors = {own: weights[name] if name in weights else buffers[name] for name, own in self._names[k].items()}
        y = torch.stack([
            functional_call(self._stages[k], {own: value[r] for own, value in tensors.items()}, (x[r],))
            for r in range(len(x))
        ])  # fmt: skip
        return y if dropout is None or k < self.n_blocks - 1 else dropout(k, y)

    def flat(self, x: Tensor) -> Tensor:
        """Return the means of maps x (R, B, C, H, W) over their pixels."""
        return x if x.dim() == 3 else x.mean(dim=(3, 4))


def enlarged(size: tuple[int, ...]) -> tuple[int, int]:
    """Return the height and width that images of this size are brought to."""
    factor = max(1.0, SMALLEST / min(size))
    return round(factor * size[0]), round(factor * size[1])


def stages(backbone: str) -> list[tuple[str, nn.Module]]:
    """Return what the names of the tensors of each block of a network of torchvision begin with, and the block."""
    from torchvision import models

    with torch.device("meta"):  # no memory, and no random numbers
        network = getattr(models, backbone)(weights=None).eval()
    if backbone.startswith("resnet"):
        stem = nn.Sequential(OrderedDict((name, getattr(network, name)) for name in STEM))
        return [("", stem.eval()), *((f"layer{k}.", getattr(network, f"layer{k}")) for k in (1, 2, 3, 4))]
    groups: list[OrderedDict[str, nn.Module]] = [OrderedDict()]
    for name, layer in network.features.named_children():
        groups[-1][name] = layer
        if isinstance(layer, nn.MaxPool2d) or not backbone.startswith("vgg"):
            groups.append(OrderedDict())
    return [("features.", nn.Sequential(group).eval()) for group in groups if group]
