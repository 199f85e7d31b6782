"""A user's own data: arrays or a `torch.utils.data.Dataset`, as a function of the study file returns them.

The function has the name that the study gives as `data`. It may take the arguments of `lab.data.datasets.Loader` or
none, and returns (images, labels), (images, labels, class_names), a torch data set of (image, label), or a `Dataset`.

Shapes: N examples; images (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from lab.errors import DataError

CHANNELS = (1, 3)


def call(loader: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Return what the function gives, called with those of the arguments that it takes."""
    parameters = inspect.signature(loader).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return loader(**arguments)
    return loader(**{p.name: arguments[p.name] for p in parameters if p.name in arguments})


def examples(name: str, returned: Any) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]] | None:
    """Return images (N, C, H, W), labels (N,) int64 and the names of the classes; None if it is nothing of the kind.

    Raises:
        DataError: Shapes, types or labels do not fit together.
    """
    class_names: Any = getattr(returned, "classes", None)
    if isinstance(returned, tuple) and len(returned) in (2, 3):
        images, labels = (np.asarray(part) for part in returned[:2])
        class_names = returned[2] if len(returned) == 3 else None
    elif hasattr(returned, "__getitem__") and hasattr(returned, "__len__"):
        images, labels = _gathered(name, returned)
    else:
        return None
    images = _as_NCHW(name, images)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.shape[:1] != images.shape[:1] or not len(labels):
        raise DataError(
            f"data set {name!r}: labels of shape {labels.shape}, {labels.dtype}, for {len(images)} images: "
            "give one whole number an image"
        )
    if labels.min() < 0:
        raise DataError(f"data set {name!r}: a label is {labels.min()}: count classes from 0")
    n_classes = int(labels.max()) + 1
    names = tuple(str(c) for c in (range(n_classes) if class_names is None else class_names))
    if len(names) < n_classes:
        raise DataError(f"data set {name!r}: labels run to {n_classes - 1}, but there are {len(names)} class names")
    return images, labels.astype(np.int64), names


def _gathered(name: str, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for k in range(len(dataset)):
        image, label = dataset[k]
        images.append(np.asarray(image))
        labels.append(int(label))
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DataError(f"data set {name!r}: images of several shapes, {sorted(shapes)[:3]} …: make them alike")
    return np.stack(images) if images else np.zeros((0, 1, 1)), np.array(labels, dtype=np.int64)


def _as_NCHW(name: str, images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        images = images[:, None]
    elif images.ndim == 4 and images.shape[1] not in CHANNELS and images.shape[3] in CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    if images.ndim != 4 or images.shape[1] not in CHANNELS:
        raise DataError(
            f"data set {name!r}: images of shape {images.shape}: give (N, H, W), (N, H, W, C) or (N, C, H, W) "
            "with 1 or 3 channels"
        )
    if images.dtype != np.uint8:
        if images.dtype.kind not in "fiu":
            raise DataError(f"data set {name!r}: images of type {images.dtype}: give bytes or floating-point numbers")
        images = images.astype(np.float32)
    return np.ascontiguousarray(images)
