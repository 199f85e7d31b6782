"""Features on the disk, which trials share: a trunk of torchvision takes longer than what is trained on it.

One safetensors file a start, training set and set of images. Its name begins with a digest of all that the features
follow from (the images, the frozen weights, the architecture, the editions of lab, torch and torchvision), and ends
with the sha256 of its content, which is compared before anything is parsed. Whatever goes wrong here, the features are
computed as if there were no store.

Shape suffixes: N examples.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

import lab
from lab.files import replacing, write_synced
from lab.models import Network
from lab.pretraining import ARCHITECTURE

MOST_BYTES = 2**30  # of all files together; those that were not used for longest go first


class FeatureStore:
    """Features in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take the folder, which is made when it is needed."""
        self._folder = folder

    def load(self, key: str) -> Tensor | None:
        """Return the features (N, …) that were saved under a key, None if they are not there or not whole."""
        from safetensors.torch import load

        for path in self._files(key):
            with contextlib.suppress(OSError):
                content = b"" if path.is_symlink() else path.read_bytes()
                if hashlib.sha256(content).hexdigest() == path.stem.partition("-")[2]:
                    os.utime(path)
                    return load(content)["features"]
                path.unlink()
        return None

    def save(self, key: str, features_N: Tensor) -> None:
        """Save features, unless the disk is full; remove what then is too much."""
        from safetensors.torch import save

        content = save({"features": features_N.detach().cpu().contiguous()})
        path = self._folder / f"{key}-{hashlib.sha256(content).hexdigest()}.safetensors"
        with contextlib.suppress(OSError):
            with replacing(path) as temporary:
                write_synced(temporary, content)
            self._trim()

    def _trim(self) -> None:
        found = sorted((stat.st_mtime, stat.st_size, path) for path in self._files() for stat in [path.stat()])
        too_much = sum(size for _, size, _ in found) - MOST_BYTES
        for _, size, path in found:
            if too_much <= 0:
                return
            path.unlink(missing_ok=True)
            too_much -= size

    def _files(self, key: str = "") -> list[Path]:
        return sorted(self._folder.glob(f"{key}*-*.safetensors"))


def key_of_weights(network: Network, weights: Mapping[str, Tensor]) -> str:
    """Return a digest of the frozen blocks of one replica, weights (1, *shape), and of what computes them."""
    options = {name: getattr(network.config, name) for name in (*ARCHITECTURE, "precision")}
    device = next(iter(weights.values())).device.type
    editions = [lab.__version__, torch.__version__, importlib.metadata.version("torchvision")]
    edition = [*editions, torch.get_num_threads(), device, network.n_frozen, options]
    sha = hashlib.sha256(json.dumps(edition, sort_keys=True).encode())
    for name in sorted(filter(network.is_frozen, weights)):
        sha.update(name.encode())
        sha.update(_bytes(weights[name]))
    return sha.hexdigest()


def key_of(of_weights: str, pieces: Iterable[Tensor]) -> str:
    """Return the key of the features of images, given piece by piece, under such blocks."""
    sha = hashlib.sha256(of_weights.encode())
    for images in pieces:
        sha.update(f"{images.dtype} {tuple(images.shape)}".encode())
        sha.update(_bytes(images))
    return sha.hexdigest()[:32]


def _bytes(values: Tensor) -> memoryview:
    return memoryview(values.detach().cpu().contiguous().numpy()).cast("B")
