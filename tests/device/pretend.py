"""The device `pretend`: computed by the CPU, and as strict as CUDA about where tensors lie.

    with pretend_device() as watch:
        pipeline.to("pretend")
        pipeline(…)
    watch.synchronizations      what made the host wait for the device, in order, and from where

As on CUDA: an operation on tensors of two devices raises RuntimeError, but for copies, for
indices on the CPU, and for 0-dimensional tensors on the CPU in pointwise operations; a CPU
generator draws nothing on the device; `.numpy()` raises TypeError. Unlike CUDA: one device, no
streams, a copy is done when it returns, and the kernels, so the rounding, are those of the CPU.

The device is made of torch's own parts: PrivateUse1 as a backend that is written in Python, and a
subclass of Tensor whose `__torch_dispatch__` sees every operation below autograd.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

NAME = "pretend"
_aten = torch.ops.aten


class Synchronization(NamedTuple):
    """The host waited until the device had done all that it was told to do."""

    operation: str
    """`_to_copy`, `_local_scalar_dense`, …"""
    place: str
    """The innermost function outside torch: `probes/watch.py:_step_call`."""


class Watch:
    """What happened on the device while it was in use."""

    def __init__(self) -> None:
        self.synchronizations: list[Synchronization] = []

    def note(self, operation: Any) -> None:
        self.synchronizations.append(Synchronization(operation.__name__.split(".")[0], _place()))


class _Session:
    """The one use of the device at a time, and the generator of what it draws."""

    watch: Watch | None = None
    generator: torch.Generator
    library: torch.library.Library | None = None


@contextmanager
def pretend_device() -> Iterator[Watch]:
    """Let there be the device; it is not available to any code outside."""
    assert _Session.watch is None, "one use at a time"
    if _Session.library is None:
        _Session.library = _register()
    _Session.watch = watch = Watch()
    _Session.generator = torch.Generator("cpu").manual_seed(0)
    # A thread of autograd's own would wait for work until the interpreter is gone, and then abort.
    try:
        with torch.autograd.set_multithreading_enabled(False):
            yield watch
    finally:
        _Session.watch = None


class PretendTensor(Tensor):
    """A tensor on the device; `held` has its values, with the same shape and strides."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendTensor:
        assert not isinstance(held, PretendTensor)
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return _run(func, args, kwargs or {})

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        _describe_anew(self, new)

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy "
            "the tensor to host memory first."
        )

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"{self.held!r} on {self.device}"

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.dim() == 0 else repr(self), spec)


class _Described(NamedTuple):
    """What an operation's schema says."""

    written: tuple[str, ...]
    """Names of the arguments that it writes to."""
    returned: tuple[str | None, ...]
    """For each result the argument that it is, if it is one."""
    names: tuple[str, ...]
    is_pointwise: bool


@functools.cache
def _described(func: Any) -> _Described:
    schema = func._schema
    written = {
        alias: argument.name
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for alias in argument.alias_info.before_set
    }
    returned = []
    for result in schema.returns:
        aliases = result.alias_info.before_set if result.alias_info is not None else ()
        returned.append(next((written[alias] for alias in aliases if alias in written), None))
    return _Described(
        tuple(written.values()),
        tuple(returned),
        tuple(argument.name for argument in schema.arguments),
        torch.Tag.pointwise in func.tags or func.overloadpacket in _TAKE_SCALARS,
    )


_COPIES = (_aten._to_copy, _aten.copy_, _aten._copy_from, _aten._copy_from_and_resize)
_INDEXED = (
    _aten.index, _aten._unsafe_index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_,
    _aten._unsafe_index_put,
)  # fmt: skip
_TAKE_SCALARS = (_aten.fill, _aten.fill_, _aten.masked_fill, _aten.masked_fill_, _aten.where)
_WAIT = (
    _aten._local_scalar_dense, _aten.nonzero, _aten.masked_select, _aten.equal, _aten._unique,
    _aten._unique2, _aten.unique_dim, _aten.unique_consecutive, _aten.unique_dim_consecutive,
    _aten.bincount, _aten._linalg_check_errors, _aten.is_nonzero, _aten.repeat_interleave,
    _aten._linalg_svd, _aten._linalg_eigh,
)  # fmt: skip
"""They read a value, or need one to know the shape of what they give."""


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute an operation on the CPU, after CUDA's checks."""
    known = _described(func)
    given = {**dict(zip(known.names, args, strict=False)), **kwargs}
    _check_places(func, known, given)
    _note_waiting(func, given)
    target = given.get("device")
    held = {name: _held(value) for name, value in given.items()}
    elsewhere = target is not None and torch.device(target).type != NAME
    if target is not None and not elsewhere:
        held["device"] = torch.device("cpu")
    if "generator" in known.names:
        if given.get("generator") is not None and _on_device(given.get("self")):
            raise RuntimeError(
                f"Expected a '{NAME}' device type for generator but found "
                f"'{given['generator'].device.type}'"
            )
        held["generator"] = _Session.generator
    num = sum(not argument.kwarg_only for argument in func._schema.arguments)
    positional = [held.pop(name) for name in known.names[: min(num, len(args))]]
    found = func(*positional, **held)
    for name in known.written:
        for tensor in _tensors(given.get(name)):
            if isinstance(tensor, PretendTensor) and tensor.shape != tensor.held.shape:
                _describe_anew(tensor, tensor)
    wrap: Callable[[Any], Any] = (lambda value: value) if elsewhere else _on_the_device
    if not isinstance(found, (tuple, list)) or len(known.returned) == 1:
        name = known.returned[0] if known.returned else None
        return wrap(found) if name is None else given[name]
    return type(found)(
        wrap(value) if name is None else given[name]
        for value, name in zip(found, known.returned, strict=True)
    )


def _check_places(func: Any, known: _Described, given: dict[str, Any]) -> None:
    """Raise RuntimeError where CUDA does: tensors on two devices, or written to the other one."""
    packet = func.overloadpacket
    if packet in _COPIES:
        return
    tensors = [(name, tensor) for name, value in given.items() for tensor in _tensors(value)]
    on_device = [isinstance(tensor, PretendTensor) for _, tensor in tensors]
    if all(on_device):
        return
    for (name, tensor), here in zip(tensors, on_device, strict=True):
        if here:
            continue
        if packet in _INDEXED and isinstance(given["self"], PretendTensor):
            if name == "indices" or (name == "values" and tensor.dim() == 0):
                continue
        elif known.is_pointwise and tensor.dim() == 0 and name not in known.written:
            continue
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {name} of {func} is on cpu, "
            f"different from other tensors on {NAME}:0"
        )


def _note_waiting(func: Any, given: dict[str, Any]) -> None:
    watch, packet = _Session.watch, func.overloadpacket
    if watch is None:
        return
    if packet in _COPIES:
        source = given["self"] if packet is not _aten.copy_ else given["src"]
        target = given["self"] if packet is _aten.copy_ else None
        to = given.get("device")
        leaves = to is not None and torch.device(to).type != source.device.type
        leaves = leaves or (target is not None and target.device.type != source.device.type)
        if leaves and not given.get("non_blocking"):
            watch.note(func)
    elif packet in _WAIT:
        watch.note(func)
    elif packet in _INDEXED:
        # Masks are counted, and indices brought to the device.
        for index in _tensors(given["indices"]):
            if index.dtype in (torch.bool, torch.uint8) or not isinstance(index, PretendTensor):
                watch.note(func)


def _place() -> str:
    """The innermost function outside torch."""
    frame = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path != __file__ and "/torch/" not in path:
            return f"{'/'.join(Path(path).parts[-2:])}:{frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _on_device(value: Any) -> bool:
    return any(isinstance(tensor, PretendTensor) for tensor in _tensors(value))


def _held(value: Any) -> Any:
    if isinstance(value, PretendTensor):
        return value.held
    if isinstance(value, (list, tuple)):
        return type(value)(_held(part) for part in value)
    return value


def _on_the_device(value: Any) -> Any:
    if isinstance(value, Tensor):
        if torch.is_inference_mode_enabled():
            # torch makes no wrapper that is an inference tensor.
            with torch.inference_mode(False):
                return PretendTensor(value)
        return PretendTensor(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_on_the_device(part) for part in value)
    return value


def _describe_anew(tensor: Any, new: Any) -> None:
    """Give a tensor on the device the values, shape, strides and dtype of another."""
    held = new.held if isinstance(new, PretendTensor) else new
    Tensor.data.__set__(tensor, _on_the_device(held))  # type: ignore[attr-defined]
    tensor.held = held


def _register() -> torch.library.Library:
    """Make the device known to torch; nothing takes it back."""
    from torch.utils import backend_registration as backends

    # Autograd starts its threads now, before there is a device to start one for.
    torch.ones(1, requires_grad=True).sum().backward()

    class Module(backends._DummyBackendModule):
        def is_available(self) -> bool:
            return _Session.watch is not None

        def get_rng_state(self, device: Any = None) -> Tensor:
            return _Session.generator.get_state()

        def set_rng_state(self, state: Tensor, device: Any = None) -> None:
            _Session.generator.set_state(state)

        def empty_cache(self) -> None:
            """Nothing is cached."""

        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.float16, torch.bfloat16]

    class Hook(backends._DummyPrivateUse1Hook):
        def is_available(self) -> bool:
            return _Session.watch is not None

    backends._setup_privateuseone_for_python_backend(NAME, Module(), Hook())
    library = torch.library.Library("aten", "IMPL")
    for name, made in {
        "empty.memory_format": _empty,
        "empty_strided": _empty_strided,
        "_copy_from": _copy_from,
        "_local_scalar_dense": _local_scalar_dense,
        "triu_indices": functools.partial(_indices, torch.triu_indices),
        "tril_indices": functools.partial(_indices, torch.tril_indices),
        "_efficientzerotensor": _zeros,
    }.items():
        library.impl(name, made, "PrivateUse1")
    return library


def _empty(size: Any, *, dtype: Any = None, memory_format: Any = None, **_: Any) -> Tensor:
    memory_format = memory_format or torch.contiguous_format
    held = torch.empty(size, dtype=dtype, device="cpu", memory_format=memory_format)
    return _on_the_device(held)  # type: ignore[no-any-return]


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    held = torch.empty_strided(size, stride, dtype=dtype, device="cpu")
    return _on_the_device(held)  # type: ignore[no-any-return]


def _zeros(size: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return _on_the_device(torch.zeros(size, dtype=dtype, device="cpu"))  # type: ignore[no-any-return]


def _indices(made: Any, *args: Any, dtype: Any = None, **_: Any) -> Tensor:
    return _on_the_device(made(*args, dtype=dtype or torch.long))  # type: ignore[no-any-return]


def _local_scalar_dense(tensor: Tensor) -> Any:
    """What `torch.tensor([x])` asks of `x`, likewise."""
    return _run(_aten._local_scalar_dense.default, (tensor,), {})


def _copy_from(source: Tensor, target: Tensor, non_blocking: bool = False) -> Tensor:
    """What `torch.tensor(…, device=…)` comes to, which goes past `__torch_dispatch__`."""
    _run(_aten.copy_.default, (target, source, non_blocking), {})
    return target
