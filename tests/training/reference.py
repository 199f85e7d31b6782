"""What a user of PyTorch would write for one replica: torch.nn, torch.optim, no stacking. The trainer is held to it.

Shares with the lab only what defines the replica: its training set, its initial weights, its batch order and which
units dropout keeps. Nothing of `lab.models.layers`, `lab.training.optimizers` or the loop is used.
"""

import dataclasses

import numpy as np
import techniques
import torch
from torch import nn

from lab import models, seeds
from lab.data.resampling import draw_resample
from lab.models.initialization import initial_values
from lab.training.dropout import Dropout

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}
POOLINGS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}

GROUPS = {6: 3, 12: 6, 24: 8, 48: 8}  # written out for the widths that the tests use


def norm_layer(kind, n, is_image):
    if kind == "batch":
        return nn.BatchNorm2d(n) if is_image else nn.BatchNorm1d(n)
    if kind == "none":
        return nn.Identity()
    return nn.GroupNorm(1 if kind == "layer" else GROUPS[n], n)


class Reference(nn.Module):
    """A perceptron or a convolutional network; `linears` and `norms` in the order in which they are initialised."""

    def __init__(self, config, image_shape, n_classes):
        super().__init__()
        self.linears, self.norms = nn.ModuleList(), nn.ModuleList()
        self.residual = config.residual == "on"
        self.pool = POOLINGS[config.pooling](2)
        self.run = config.convolutions if config.family == "cnn" else 1
        self.is_cnn = config.family == "cnn"
        channels, height, width = image_shape
        n = channels if self.is_cnn else channels * height * width
        for layer in range(config.depth * self.run):
            self.linears.append(nn.Conv2d(n, config.width, 3, padding=1) if self.is_cnn else nn.Linear(n, config.width))
            self.norms.append(norm_layer(config.norm, config.width, self.is_cnn))
            n = config.width
            if self.is_cnn and layer % self.run == self.run - 1 and min(height, width) >= 2:
                height, width = height // 2, width // 2
        self.output = nn.Linear(n * height * width if self.is_cnn else n, n_classes)
        self.activation = ACTIVATIONS[config.activation]()
        self.rate, self.channel_rate = config.dropout, config.spatial_dropout
        self.kept = self.kept_channels = None
        self.n_frozen = round(config.frozen * config.depth)

    def forward(self, x):
        if not self.is_cnn:
            x = x.flatten(1)
        for layer, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            y = self.activation(norm(linear(x)))
            x = x + y if self.residual and layer else y
            block, place = divmod(layer, self.run)
            if place < self.run - 1:
                continue
            if self.is_cnn and min(x.shape[-2:]) >= 2:
                x = self.pool(x)
            x = self.dropped(block, x)
        return self.output(x.flatten(1))

    def dropped(self, layer, x):
        if not self.training or layer < self.n_frozen:
            return x
        if self.rate:
            x = x * self.kept(layer, x.numel()).view(x.shape) / (1 - self.rate)
        if self.channel_rate:
            kept = self.kept_channels(layer, x.shape[0] * x.shape[1]).view(*x.shape[:2], 1, 1)
            x = x * kept / (1 - self.channel_rate)
        return x

    def freeze(self):
        """Let the first blocks be as they are: no gradient, no statistics of batches."""
        for module in [*self.linears[: self.n_frozen * self.run], *self.norms[: self.n_frozen * self.run]]:
            module.requires_grad_(False)
        self.train()

    def train(self, mode=True):
        super().train(mode)
        for norm in self.norms[: self.n_frozen * self.run]:
            norm.eval()
        return self


class ReferenceResNet(Reference):
    def __init__(self, config, image_shape, n_classes):
        nn.Module.__init__(self)
        self.linears, self.norms, self.blocks = nn.ModuleList(), nn.ModuleList(), []
        self.config, self.activation = config, ACTIVATIONS[config.activation]()
        self.rate, self.channel_rate = config.dropout, config.spatial_dropout
        width = config.width
        assert config.frozen in (0.0, 1.0)
        self.n_frozen, self.run = (99, 1) if config.frozen else (0, 1)
        stem = self.convolution(image_shape[0], width, 3, 1)
        self.stem = stem
        n = width
        for n_out, stride in ((width, 1), (2 * width, 2), (4 * width, 2), (8 * width, 2)):
            for block in range(config.depth):
                s = stride if block == 0 else 1
                first, second = self.convolution(n, n_out, 3, s), self.convolution(n_out, n_out, 3, 1)
                changes = config.residual != "off" and (s != 1 or n != n_out)
                self.blocks.append((first, second, self.convolution(n, n_out, 1, s) if changes else None))
                n = n_out
        self.output = nn.Linear(n, n_classes)

    def convolution(self, n_in, n_out, kernel, stride):
        bias = self.config.norm == "none"
        self.linears.append(nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=bias))
        self.norms.append(norm_layer(self.config.norm, n_out, True))
        return nn.Sequential(self.linears[-1], self.norms[-1])

    def forward(self, x):
        x = self.activation(self.stem(x))
        for layer, (first, second, projection) in enumerate(self.blocks):
            y = second(self.dropped(layer, self.activation(first(x))))
            if self.config.residual != "off":
                y = y + (projection(x) if projection is not None else x)
            x = self.activation(y)
        return self.output(x.mean(dim=(2, 3)))


def load_initial_weights(module, network, config, init, seed):
    values = initial_values(
        network.parameters, config.init_scheme, config.init_gain, seeds.generator(seed, "init", init)
    )
    sizes = [int(np.prod(p.shape)) for p in network.parameters]
    tensors = [
        torch.from_numpy(v.reshape(p.shape))
        for p, v in zip(network.parameters, np.split(values, np.cumsum(sizes)[:-1]), strict=True)
    ]
    own = []
    for linear, norm in zip([*module.linears, module.output], [*module.norms, None], strict=True):
        own += [p for p in (linear.weight, linear.bias) if p is not None]
        if norm is not None and len(list(norm.parameters())):
            own += [norm.weight, norm.bias]
    with torch.no_grad():
        for target, value in zip(own, tensors, strict=True):
            target.copy_(value.T if target.dim() == 2 else value)  # the lab stores a linear weight (in, out)


def scheduler(config, optimizer, n_steps):
    kinds = torch.optim.lr_scheduler
    if config.schedule == "cosine":
        return kinds.CosineAnnealingLR(optimizer, n_steps)
    if config.schedule == "step":
        return kinds.MultiStepLR(optimizer, [int(np.ceil(n_steps / 2)), int(np.ceil(3 * n_steps / 4))])
    if config.schedule == "one_cycle":
        return kinds.OneCycleLR(optimizer, config.learning_rate, total_steps=n_steps, cycle_momentum=False)
    return kinds.ConstantLR(optimizer, factor=1.0)


def train_alone(config, dataset, *, scheme, n_blocks, seed, resample, init, attack_epsilon=0.0):
    """Train replica (resample, init) by itself in float64; return its test probabilities (N, C).

    The test images are attacked before, if `attack_epsilon` is above 0.
    """
    pool = draw_resample(dataset, scheme, n_train=config.n_train, n_blocks=n_blocks, seed=seed, index=resample)
    mean = pool.images.mean(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    std = pool.images.std(axis=(0, 2, 3), keepdims=True, dtype=np.float64)
    if config.normalize == "none":
        mean, std = np.zeros_like(mean), np.ones_like(std)

    def prepared(images):
        # the lab keeps the statistics in float32
        return torch.from_numpy((images.astype(np.float64) - np.float32(mean)) / np.float32(std))

    x, y = prepared(pool.images), torch.from_numpy(pool.labels)
    network = models.build(config, dataset.image_shape, dataset.n_classes)
    kind = ReferenceResNet if config.family == "resnet" else Reference
    module = kind(config, dataset.image_shape, dataset.n_classes).double()
    load_initial_weights(module, network, config, init, seed)
    masks = Dropout(
        [config.dropout], [init], seed=seed, device=torch.device("cpu"), channel_rates_R=[config.spatial_dropout]
    )
    module.kept = lambda layer, n: masks.kept(layer, n)[0].double()
    module.kept_channels = lambda layer, n: masks.kept_channels(layer, n)[0].double()
    module.freeze()
    rate, decay = config.learning_rate, config.weight_decay
    of_head = list(module.output.parameters())
    of_body = [p for p in module.parameters() if p.requires_grad and not any(p is q for q in of_head)]
    groups = [{"params": of_body}, {"params": of_head, "lr": rate * config.head_rate_factor}]
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(
            groups, lr=rate, momentum=config.momentum, nesterov=config.nesterov, weight_decay=decay
        )
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
        optimizer = kind(groups, lr=rate, weight_decay=decay, fused=False, foreach=False)
    n_steps = config.epochs * -(-config.n_train // config.batch_size)
    schedule = scheduler(config, optimizer, n_steps)
    loss_of = techniques.objective(config, pool.labels, dataset.n_classes)
    scale = [torch.from_numpy(np.float32(value)).double() for value in (mean, std)]
    average = techniques.Average(config, module, -(-config.n_train // config.batch_size))
    step = 0
    for epoch in range(1, config.epochs + 1):
        order = torch.from_numpy(seeds.generator(seed, "order", init, epoch).permutation(config.n_train))
        for batch in order.split(config.batch_size):
            masks.begin(step, 1)
            optimizer.zero_grad()
            images = techniques.moved(config, module, x[batch], y[batch], *scale)
            penalty = config.l1 * sum(p.abs().sum() for p in module.parameters())
            (loss_of(module(images), y[batch]) + penalty).backward()
            optimizer.step()
            average.update(module)
            step += 1
            if step < n_steps:
                schedule.step()
    if config.averaging != "none":
        module = average.finished(x.split(config.batch_size))
    module.eval()
    x_test = prepared(dataset.test.images)
    if attack_epsilon:
        attack = dataclasses.replace(config, adversarial="pgd", epsilon=attack_epsilon)
        x_test = techniques.moved(attack, module, x_test, torch.from_numpy(dataset.test.labels), *scale)
    with torch.no_grad():
        return torch.softmax(module(x_test), dim=-1).numpy()
