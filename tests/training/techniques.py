"""Losses, attacks and averages of weights as a user of PyTorch would write them for one replica, see reference.py."""

import math

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.swa_utils import AveragedModel, update_bn


def objective(config, labels, n_classes):
    """The training loss (logits, labels) → scalar, for a replica with these labels in its training set."""
    weight = torch.zeros(n_classes, dtype=torch.float64)
    present = np.unique(labels)
    weight[present] = torch.from_numpy(compute_class_weight("balanced", classes=present, y=labels))
    weight = weight if config.class_weights == "balanced" else torch.ones_like(weight)
    if config.loss == "cross_entropy":
        return nn.CrossEntropyLoss(weight, label_smoothing=config.label_smoothing)
    assert config.label_smoothing == 0

    def loss(logits, y):
        p = torch.softmax(logits, dim=1)
        right = p[torch.arange(len(y)), y]
        each = {
            "brier": ((p - one_hot(y, n_classes)) ** 2).sum(dim=1),
            "focal": -((1 - right) ** config.focal_gamma) * torch.log(right),
        }[config.loss]
        return (weight[y] * each).sum() / weight[y].sum()

    return loss


def moved(config, module, x, y, mean, std):
    """The training images under attack; pixels of 0 to 1 were standardised with this mean and standard deviation."""
    if config.adversarial == "none":
        return x
    n_steps = {"fgsm": 1, "pgd": 7}[config.adversarial]
    reach = config.epsilon if n_steps == 1 else 2.5 * config.epsilon / n_steps
    was_training = module.training
    module.eval()
    start = x * std + mean
    pixels = start.clone()
    for _ in range(n_steps):
        pixels.requires_grad_()
        loss = cross_entropy(module((pixels - mean) / std), y, reduction="sum")
        (slope,) = torch.autograd.grad(loss, pixels)
        pixels = pixels.detach() + reach * slope.sign()
        pixels = (start + (pixels - start).clamp(-config.epsilon, config.epsilon)).clamp(0, 1)
    module.train(was_training)
    return (pixels - mean) / std


class Average:
    """A module of averaged weights, updated after every step."""

    def __init__(self, config, module, n_batches):
        self.config, self.n_batches, self.n_done = config, n_batches, 0
        if config.averaging == "ema":
            self.model = AveragedModel(module, avg_fn=self.moving)
            self.model.n_averaged.fill_(1)  # begins with the initial weights
        else:
            self.model = AveragedModel(module)

    def moving(self, average, weight, n_averaged):
        decay = min(self.config.ema_decay, (1 + self.n_done) / (10 + self.n_done))
        return decay * average + (1 - decay) * weight

    def update(self, module):
        self.n_done += 1
        at_end = self.n_done % self.n_batches == 0
        epoch = self.n_done // self.n_batches
        if self.config.averaging == "ema" or (at_end and epoch >= math.ceil(0.75 * self.config.epochs)):
            self.model.update_parameters(module)

    def finished(self, x):
        module = self.model.module
        # update_bn would leave dropout on: these are to be the statistics of a network that predicts
        module.rate = module.channel_rate = 0.0
        update_bn(x, module)
        return module
