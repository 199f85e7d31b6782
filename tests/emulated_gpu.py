"""A GPU that is emulated on the CPU, for tests of what is otherwise run on a real one alone.

Tensors of the emulated device hold their values in host memory and say that they are on cuda:0. What a real device
refuses is refused here: operations on tensors of two devices, conversion to numpy, and, in the capture of a graph,
anything that makes the host wait. A captured graph is the list of the operations that were launched, with the memory
that they read and wrote. Replaying it runs them again on that memory, and nothing else: no line of Python, and no
number that has changed since on the host.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from lab.models import ways

aten = torch.ops.aten
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")

# what has the host wait for the device, as it asks for a value or for a number of values
WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.equal.default,
    aten._unique2.default, aten.unique_dim.default, aten.bincount.default, aten.repeat_interleave.Tensor,
}  # fmt: skip
WRITTEN = {aten.native_batch_norm.default: (3, 4)}  # arguments that are written to, which a signature does not say
MIXED = {aten.copy_.default, aten.index.Tensor}  # what may be given tensors of two devices


class GpuTensor(torch.Tensor):
    """A tensor that says that it is on the emulated device."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # see `_Functions`

    @staticmethod
    def of(values: Tensor) -> "GpuTensor":
        """Return these values, in the memory in which they are, as a tensor of the device."""
        return Tensor._make_subclass(GpuTensor, values)

    @property
    def device(self) -> torch.device:
        """Where it says that it is."""
        return CUDA

    @property
    def is_cuda(self) -> bool:
        """It says so."""
        return True

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation of which this class has an argument."""
        return Gpu.current.launch(func, args, kwargs or {})


@dataclass
class _Graph:
    """A stand-in for torch.cuda.CUDAGraph."""

    launches: list[tuple[Any, Any, Any, Any]] = field(default_factory=list)

    def pool(self) -> str:
        return "pool"

    def replay(self) -> None:
        Gpu.current.n_replays += 1
        with _plain():
            for func, args, kwargs, out in self.launches:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old is not new:
                        old.copy_(new)


class Gpu:
    """The state of the emulated device.

    Attributes:
        n_waits: How often the host has waited for it, transfers included, by the name of the operation.
        n_replays: How often a graph has been replayed.
        free: Bytes that it says are free.
        most: Values that a tensor may have at the most; a larger one does not fit in its memory.
        is_busy: Whether the host must not wait for it now.
    """

    current: "Gpu"

    def __init__(self, free: int, most: int) -> None:
        self.free, self.most, self.n_replays, self.is_busy = free, most, 0, False
        self.n_waits: dict[str, int] = {}
        self._graph: _Graph | None = None
        self._before: list[tuple[Tensor, Tensor]] = []  # what a capture would have overwritten, in order

    def wait(self, what: str) -> None:
        """Note that the host waits."""
        if self._graph is not None:
            raise RuntimeError(f"operation not permitted when stream is capturing: {what}")
        if self.is_busy:
            raise AssertionError(f"the host waits for the device within an epoch: {what}")
        self.n_waits[what] = self.n_waits.get(what, 0) + 1

    def launch(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on tensors of the device, as the device would."""
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        elsewhere = [t for t in tensors if not isinstance(t, GpuTensor)]
        if func in WAITING:
            self.wait(str(func))
        if func is aten.index.Tensor and any(t.dtype == torch.bool for t in tensors[1:]):
            self.wait("indexing by a mask")
        if func in MIXED and elsewhere:
            self.wait(f"{func} across devices")
            assert func is not aten.index.Tensor or isinstance(args[0], GpuTensor)
        elif any(t.dim() > 0 for t in elsewhere):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu: {func}")
        if self._graph is not None:
            self._note_what_changes(func, args, kwargs)
        with _plain():
            out = func(*args, **kwargs)
            if any(t.numel() > self.most for t in tree_leaves(out) if isinstance(t, Tensor)):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            out = tree_map(lambda t: GpuTensor.of(t) if type(t) is Tensor else t, out)
        if self._graph is not None and not _is_view(func):
            self._graph.launches.append((func, args, kwargs, out))
        return out

    def _note_what_changes(self, func: Any, args: Any, kwargs: Any) -> None:
        for k, argument in enumerate(func._schema.arguments):
            is_write = argument.alias_info is not None and argument.alias_info.is_write
            if is_write or k in WRITTEN.get(func, ()):
                given = args[k] if k < len(args) else kwargs.get(argument.name)
                with _plain():
                    self._before += [(t, t.clone()) for t in tree_leaves(given) if isinstance(t, Tensor)]

    @contextlib.contextmanager
    def capturing(self, graph: _Graph, pool: Any = None) -> Iterator[None]:
        """Stand in for torch.cuda.graph: what is launched inside is recorded, and has not happened afterwards."""
        self._graph, self._before = graph, []
        try:
            yield
        finally:
            self._graph = None
            with _plain():
                for func, _, _, out in graph.launches:
                    if not func._schema.is_mutable:  # memory that has not been written yet
                        for t in tree_leaves(out):
                            if isinstance(t, Tensor):
                                t.fill_(float("nan") if t.is_floating_point() else 1)
                for t, before in reversed(self._before):
                    t.copy_(before)


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """Work on the values themselves."""
    with torch.no_grad(), torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        yield


def _is_view(func: Any) -> bool:
    """Return whether an operation does nothing on a device: the tensor that it returns is a way to look at another."""
    return not func._schema.is_mutable and any(r.alias_info is not None for r in func._schema.returns)


class _Functions(TorchFunctionMode):
    """What is asked of a device in Python is carried out on the host, and its results say that they are there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (Tensor.numpy, Tensor.__array__, Tensor.tolist) and isinstance(args[0], GpuTensor):
            if func is not Tensor.tolist:
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
            Gpu.current.wait("tolist")
            with _plain():
                return args[0].as_subclass(Tensor).tolist()
        if func is torch.nn.functional.one_hot and isinstance(
            args[0], GpuTensor
        ):  # C++ counts where it is, on the host
            return (args[0][..., None] == GpuTensor.of(torch.arange(args[1]))).to(torch.int64)
        if func in (Tensor.to, Tensor.cpu):
            return self._moved(func, args, kwargs)
        device = kwargs.get("device")
        if device is None or torch.device(device).type != "cuda":
            return func(*args, **kwargs)
        out = func(*args, **kwargs | {"device": CPU})
        if isinstance(out, GpuTensor):
            return out
        if any(isinstance(value, Tensor) for value in args):
            Gpu.current.wait("copy to the device")
        return GpuTensor.of(out.detach().clone())

    def _moved(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        tensor, *rest = args
        if func is Tensor.cpu:
            func, rest = Tensor.to, [CPU]
        wanted = kwargs.pop("device", None)
        for k, value in enumerate(rest):
            if isinstance(value, Tensor):
                wanted, rest[k] = value.device, value.dtype
            elif isinstance(value, str | torch.device):
                wanted, rest[k] = value, None
        rest = [value for value in rest if value is not None and not isinstance(value, bool)]  # whether to wait
        here = tensor.device.type
        there = here if wanted is None else torch.device(wanted).type
        moved = func(tensor, *rest, **kwargs) if rest or kwargs else tensor
        if here == there:
            return moved
        Gpu.current.wait(f"copy from {here} to {there}")
        if there == "cuda":
            return GpuTensor.of(moved.detach().clone())
        with _plain():
            return moved.as_subclass(Tensor).clone()


def _groups(tensor_lists: Any, with_indices: bool = False) -> Any:
    """Stand in for what asks C++ where tensors are."""
    first = tensor_lists[0][0]
    return {(first.device, first.dtype): (tensor_lists, list(range(len(tensor_lists[0]))))}


@contextlib.contextmanager
def emulated_gpu(monkeypatch: Any, *, free: int = 2**30, most: int = 2**40) -> Iterator[Gpu]:
    """Work with an emulated GPU, of which so many bytes are free, for tensors of so many values at the most."""
    Gpu.current = Gpu(free, most)
    stand_ins: dict[str, Callable[..., Any]] = {
        "CUDAGraph": _Graph, "graph": Gpu.current.capturing, "device": lambda _: contextlib.nullcontext(),
        "synchronize": lambda *_: None, "empty_cache": lambda: None,
        "mem_get_info": lambda *_: (Gpu.current.free, 2 * Gpu.current.free),
        "is_available": lambda: True, "device_count": lambda: 1, "get_device_name": lambda *_: "emulated",
        "is_current_stream_capturing": lambda: Gpu.current._graph is not None,
        "memory_reserved": lambda *_: 0, "memory_allocated": lambda *_: 0,
    }  # fmt: skip
    with monkeypatch.context() as patch:
        for name, stand_in in stand_ins.items():
            patch.setattr(torch.cuda, name, stand_in)
        patch.setattr(torch.optim.Optimizer, "_group_tensors_by_device_and_dtype", staticmethod(_groups))
        patch.setattr(ways, "_chosen", {})  # what is fastest here is not what is fastest on a real one
        patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda _: None)
        autocast, is_enabled = torch.autocast, torch.is_autocast_enabled
        patch.setattr(torch, "autocast", lambda _device, *args, **options: autocast("cpu", *args, **options))
        patch.setattr(torch, "is_autocast_enabled", lambda _device: is_enabled("cpu"))  # by what stands in for it
        overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # a tensor of the host cannot become another
        try:
            with _Functions():
                yield Gpu.current
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
