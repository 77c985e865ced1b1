"""What the memory of a model was before somebody else's code changed it, so that it can be undone.

While hooks, modules' own loading and initialisers run, every operation of torch that writes into
watched memory saves what is there first. So nothing is copied but what is changed. It does not see
what goes past torch's dispatcher: numpy arrays on the same memory, and kernels of others.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from torch_warmstart.computing import Mode
from torch_warmstart.model.attributes import Attributes, is_same_register
from torch_warmstart.model.memory import Extent, Extents, extent_of
from torch_warmstart.model.modules import modules_of, tensors_of
from torch_warmstart.model.sharding import local_tensors, memory_of

_STATISTICS = ("running_mean", "running_var")
_NOTHING: dict[str, Any] = {}


class Journal:
    """Old bytes, and which parameters and buffers the modules had."""

    def __init__(
        self,
        model: torch.nn.Module,
        others: Iterable[torch.Tensor] = (),
        blank: Iterable[torch.Tensor] = (),
        beside: Sequence[torch.nn.Module] = (),
    ) -> None:
        """Watches all tensors of a model.

        Args:
            model: The model.
            others: More tensors to watch: an optimizer's state, what a checkpoint has in memory.
            blank: Those among all of them whose bytes nobody will want again.
            beside: Other models, which are watched as it is.
        """
        models = (model, *beside)
        others = list(others)
        whole = [t for m in models for t in tensors_of(m)]
        own = list(_with_bytes(whole))
        self._roles = _Roles([*whole, *others])
        own += _with_bytes(self._roles.gradients())
        self.mode: _Watching = _Watching(self)
        self._extents = Extents((tensor, None) for tensor in (*own, *_with_bytes(others)))
        self._blank = {extent_of(tensor) for tensor in _with_bytes(blank)}
        self._saved: list[tuple[torch.Tensor, torch.Tensor]] = []  # bytes in memory; what they were
        self._written: list[Extent] = []
        self._empty: set[object] = set()  # what was written of which nothing is here
        self._memories = _Memories(tensor for tensor in own if not tensor.is_meta)
        modules = (module for one in models for module in modules_of(one))
        self._registers = _Registers(where for module in modules for where in _registers(module))
        self._attributes = Attributes()

    def keep_attributes(self, modules: Iterable[torch.nn.Module]) -> None:
        """Remembers what else modules have: their attributes, and who listens to them."""
        self._attributes.keep(modules)

    def keep_optimizers(self, optimizers: Iterable[torch.optim.Optimizer]) -> None:
        """The same of optimizers: their groups, and what they have a state of."""
        self._attributes.keep_optimizers(optimizers)

    def save(self, tensor: torch.Tensor) -> None:
        """Keeps what a tensor is, which is about to be changed."""
        extent = extent_of(tensor)
        if extent is None:
            return
        if extent not in self._written and extent not in self._blank:
            memory = _bytes_of(tensor)
            self._saved.append((memory, memory.clone()))
        self._written.append(extent)

    def see(self, tensor: torch.Tensor) -> None:
        """As `save`, if the tensor lies in what is watched."""
        here = local_tensors(tensor)
        if not here:
            self._empty.add(memory_of(tensor))
        for local in here:
            if any(True for _ in self._extents.touching(extent_of(local))):
                self.save(local)

    def __len__(self) -> int:
        """How many writes there were so far."""
        return len(self._written)

    def written_since(self, mark: int) -> tuple[Extent, ...]:
        """What was written after there had been `mark` writes."""
        return tuple(self._written[mark:])

    def has_seen_empty(self, tensor: torch.Tensor) -> bool:
        """Whether a sharded tensor was written to of which nothing is here, as on other ranks."""
        return memory_of(tensor) in self._empty

    def arrangement(self) -> Callable[[], bool]:
        """Tells, when it is called, whether modules have the tensors of now, with what is theirs.

        Their memory, their gradients. That need not be what they had at first: modules may have
        made tensors of their own.
        """
        now = (_Registers(self._registers), _Memories(self._memories), _Roles(self._roles))
        return lambda: not any(True for one in now for _ in one.changed())

    def spare(self, changed: Iterable[torch.Tensor], replaced: Iterable[torch.Tensor] = ()) -> None:
        """Makes all tensors as they were but some, and those that held nothing.

        Args:
            changed: What may have got other values.
            replaced: What may have got another tensor in its place.
        """
        meant, gone = {id(tensor) for tensor in changed}, {id(tensor) for tensor in replaced}
        for where, entries in self._registers.changed():
            for name, entry in entries.items():
                is_one = isinstance(entry, torch.Tensor) and not entry.is_meta
                if is_one and id(entry) not in gone and where.get(name) is not entry:
                    where[name] = entry
        for tensor, memory in self._memories.changed():
            if id(tensor) not in meant:
                tensor.data = memory
        for tensor, gradient, requires_grad in self._roles.changed():
            if id(tensor) not in meant:
                tensor.requires_grad_(requires_grad).grad = gradient
        self._write_back()

    def restore(self) -> None:
        """Makes all as it was; a second time makes no difference."""
        self.mode.is_open = False
        for where, entries in self._registers.changed():
            where.clear()
            where.update(entries)
        self._attributes.put_back()
        for tensor, memory in self._memories.changed():
            tensor.data = memory
        for tensor, gradient, requires_grad in self._roles.changed():
            tensor.requires_grad_(requires_grad).grad = gradient
        self._write_back()

    def _write_back(self) -> None:
        with torch.no_grad():
            for memory, before in reversed(self._saved):
                memory.copy_(before)

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """What is done within is undone when it is left, the random numbers of the CPU too."""
        drawn, of_numpy = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng(devices=[]), self.mode:
                yield
        finally:
            self.close()
            self.restore()
            random.setstate(drawn)
            np.random.set_state(of_numpy)

    def close(self) -> None:
        """Watches no more, though an interrupt has kept the mode on torch's stack."""
        self.mode.is_open = False
        while _get_current_dispatch_mode() is self.mode:
            self.mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]


class _Registers:
    """Where modules have their tensors and children, and what was there: of many modules little."""

    def __init__(self, registers: Iterable[dict[str, Any]]) -> None:
        self._all = list(registers)
        self._entries = {id(where): dict(where) for where in self._all if where}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._all)

    def changed(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Those that hold something else now, and what they held."""
        for where in self._all:
            entries = self._entries.get(id(where), _NOTHING)
            if (where or entries) and not is_same_register(where, entries):
                yield where, entries


class _Memories:
    """What lies behind tensors, in case it is replaced."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._tensors = list(tensors)
        self._memories = [tensor.detach() for tensor in self._tensors]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self._tensors)

    def changed(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Those that lie elsewhere now, and where they lay."""
        for tensor, memory in zip(self._tensors, self._memories, strict=True):
            if not _is_same_memory(tensor, memory):
                yield tensor, memory


class _Roles:
    """What training makes of tensors: their gradients, and whether they get one."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._all = [(t, t.grad, t.requires_grad) for t in tensors if t.is_leaf]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (tensor for tensor, _, _ in self._all)

    def gradients(self) -> Iterator[torch.Tensor]:
        """Those that there are."""
        return (gradient for _, gradient, _ in self._all if gradient is not None)

    def changed(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None, bool]]:
        """Those for which it is something else now, and what it was."""
        for tensor, gradient, requires_grad in self._all:
            if tensor.requires_grad is not requires_grad or tensor.grad is not gradient:
                yield tensor, gradient, requires_grad


class _Watching(Mode):
    """Sees every operation while it is entered."""

    def __init__(self, journal: Journal) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._journal = journal
        self.is_open = True  # an interruption may leave the mode on torch's stack

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.is_open:
            for tensor in _changed_by(func, args, kwargs):
                self._journal.see(tensor)
        return func(*args, **kwargs)


def _with_bytes(tensors: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Of tensors that are sharded, what is here of them; nothing of those without a shape yet."""
    there = (tensor for tensor in tensors if not torch.nn.parameter.is_lazy(tensor))
    return (local for tensor in there for local in local_tensors(tensor))


def _registers(module: Any) -> tuple[dict[str, Any], ...]:
    """Where a module has its tensors and children; not TorchScript's, which cannot be replaced."""
    registers = (module._parameters, module._buffers, module._modules)
    return tuple(where for where in registers if isinstance(where, dict))


def _changed_by(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The arguments that an operation writes into."""
    for at, name in _written_by(func):
        value = args[at] if at < len(args) else kwargs.get(name)
        if name in _STATISTICS and not _is_training(func, args, kwargs):
            continue
        for tensor in value if isinstance(value, list | tuple) else [value]:
            if isinstance(tensor, torch.Tensor):
                yield tensor


def _is_training(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation of a norm is told to keep statistics; some always do."""
    names = [argument.name for argument in func._schema.arguments]
    at = names.index("training") if "training" in names else len(args)
    return bool(args[at] if at < len(args) else kwargs.get("training", True))


@functools.cache
def _written_by(func: Any) -> tuple[tuple[int, str], ...]:
    """The places and names of the arguments that an operation may write into.

    Those that norms keep statistics in are not marked as such: native_batch_norm and its like in
    aten/src/ATen/native/native_functions.yaml.
    """
    schema = getattr(func, "_schema", None)
    return tuple(
        (at, argument.name)
        for at, argument in enumerate(() if schema is None else schema.arguments)
        if argument.name in _STATISTICS
        or (argument.alias_info is not None and argument.alias_info.is_write)
    )


def _bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    """The memory from a tensor's first byte to its last, as it is."""
    extent = extent_of(tensor)
    assert extent is not None
    storage = tensor.untyped_storage()
    offset = tensor.storage_offset() * tensor.element_size()
    flat = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    return flat.set_(storage, offset, (extent.stop - extent.start,))  # type: ignore[call-overload, no-any-return]


def _is_same_memory(tensor: torch.Tensor, memory: torch.Tensor) -> bool:
    if tensor.layout is not torch.strided or tensor.shape != memory.shape:
        return tensor.layout is memory.layout and tensor.shape == memory.shape
    same = tensor.dtype == memory.dtype and tensor.stride() == memory.stride()
    return same and extent_of(tensor) == extent_of(memory)
