"""TorchRec's tables that are spread over processes, and the state of the optimizers within them.

A module of TorchRec registers in a table's place whatever is here of it, with nothing that says
where it belongs; on a process without a share, an empty parameter. What `state_dict()` has says
both, and lies on the memory of FBGEMM's kernels. A fused optimizer is known only to processes that
have a share, so what it keeps for the others' tables follows from its kind: plans are equal on all.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.model.sharding.boxed import Boxed, boxed, boxed_like
from torch_warmstart.values import frozen

_TORCHREC = "torchrec.distributed.types"  # where it says what is spread over processes
_FBGEMMS_OWN = "exact_sgd"  # the optimizer of its kernels, where nobody chose one
_FUSED = "fused"  # how kernels are called that update their tables themselves
_PLAIN_KERNELS = ("dense", _FUSED)
_POINTS, _ROWS = "as the table", "a number for a row"  # shapes of what is kept

FIRST_STATE = "momentum1"  # what TorchRec calls the first that kernels keep, whichever it is
# What FBGEMM's optimizers keep, by TorchRec's names (EmbeddingFusedOptimizer): the first has one
# name, the others are called as in its get_optimizer_state(). Another one's first means something
# else (that of `lars_sgd`), so what is not here is refused.
_KEPT: Mapping[str | None, Mapping[str, str]] = {
    "sgd": {},
    "exact_sgd": {},
    "exact_adagrad": {FIRST_STATE: _POINTS},
    "exact_row_wise_adagrad": {FIRST_STATE: _ROWS},
    "adam": {FIRST_STATE: _POINTS, "exp_avg_sq": _POINTS},
    "lamb": {FIRST_STATE: _POINTS, "exp_avg_sq": _POINTS},
    "partial_row_wise_adam": {FIRST_STATE: _POINTS, "exp_avg_sq": _ROWS},
    "partial_row_wise_lamb": {FIRST_STATE: _POINTS, "exp_avg_sq": _ROWS},
}


@frozen(eq=False)
class Table:
    """A table that one of TorchRec's modules has spread over processes."""

    tensor: Boxed
    layer: torch.nn.Module  # what the table was before, on the meta device


@frozen(eq=False)
class FusedState:
    """What kernels keep for a table that they update themselves."""

    optimizer: torch.optim.Optimizer
    kept: Mapping[str, torch.Tensor]  # by the name without the table's


_known: MutableMapping[torch.nn.Module, dict[str, tuple[Any, Boxed]]] = weakref.WeakKeyDictionary()


def tables_of(model: torch.nn.Module) -> dict[str, Table]:
    """TorchRec's tables in a model, by the name of the parameter that stands for each.

    Raises UnsupportedError: one is kept in a way that cannot be filled in place.
    """
    found: dict[str, Table] = {}
    for path, module in _sharded_modules(model):
        prefix = f"{path}." if path else ""
        found.update({prefix + name: table for name, table in _tables_of(module).items()})
    return found


def fused_states(
    model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> Iterator[tuple[str, FusedState]]:
    """What the kernels of a model's tables keep, by the parameter's name.

    Args:
        model: The model.
        optimizers: Those that were passed; states of which none of them knows are left out.
    """
    passed = {id(node) for optimizer in optimizers for node in _tree(optimizer)}
    for path, module in _sharded_modules(model):
        fused = getattr(module, "fused_optimizer", None)
        if fused is None or not any(id(node) in passed for node in _tree(fused)):
            continue
        prefix = f"{path}." if path else ""
        for name, table in _tables_of(module).items():
            if _is_fused(_kernel_of(module, name)):
                yield prefix + name, _fused_state(module, fused, name, table.tensor)


def plain_optimizers(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizers of torch within one of TorchRec's; itself where it is none of these.

    Raises UnsupportedError: one of TorchRec's keeps its state in a way that is not known.
    """
    leaves = [node for node in _tree(optimizer) if not _children(node)]
    for leaf in leaves:
        if _is_keyed(leaf) and not _is_known(leaf):
            raise UnsupportedError(
                f"{type(leaf).__name__} keeps its state in a way that is not known: pass the "
                "optimizers that it wraps, as a list."
            )
    return [leaf for leaf in leaves if not _is_keyed(leaf)]


# -- modules ---------------------------------------------------------------------------------------


def _sharded_modules(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """TorchRec's modules that lie in no other of them."""
    if not has_torchrec():  # known before all modules are asked
        return
    within: list[str] = []
    for path, module in model.named_modules(remove_duplicate=False):
        if is_of_torchrec(module) and not any(path.startswith(outer) for outer in within):
            within.append(f"{path}." if path else "")
            yield path, module


def _tables_of(module: torch.nn.Module) -> dict[str, Table]:
    _check_kernels(module)
    registered: dict[str, torch.Tensor] = dict(torch.nn.Module.named_parameters(module))
    registered.update(torch.nn.Module.named_buffers(module))
    known = _known.setdefault(module, {})
    found = {}
    for name, value in module.state_dict().items():
        if name in known and known[name][0] is value:
            tensor: Boxed | None = known[name][1]
        else:
            tensor = boxed(value, registered.get(name))
        if tensor is None:
            continue
        if name not in registered:
            raise UnsupportedError(
                f"{name!r} of a {type(module).__name__} is spread over processes and registered "
                "nowhere, so that it is no variable: warm-start the model before it is sharded."
            )
        known[name] = value, tensor
        found[name] = Table(tensor, _layer_of(name, tensor))
    return found


def _layer_of(name: str, tensor: torch.Tensor) -> torch.nn.Module:
    kind = torch.nn.Embedding if ".embedding_bags." not in f".{name}" else torch.nn.EmbeddingBag
    if tensor.ndim != 2:
        return torch.nn.Module()
    rows, width = tensor.shape
    return kind(rows, width, device="meta", dtype=tensor.dtype)


def _check_kernels(module: Any) -> None:
    for table, sharding in getattr(module, "module_sharding_plan", {}).items():
        kernel = str(sharding.compute_kernel)
        if kernel not in _PLAIN_KERNELS and not _is_fused(kernel):
            raise UnsupportedError(
                f"The table {table!r} has TorchRec's compute kernel {kernel!r}, whose rows lie "
                "where no tensor reaches them: warm-start the model before it is sharded."
            )


def _is_fused(kernel: str) -> bool:
    return kernel.startswith(_FUSED)


def _kernel_of(module: Any, name: str) -> str:
    """The kernel of a table, by the name of its parameter; "" for what is none."""
    sharding = getattr(module, "module_sharding_plan", {}).get(_table_in(name))
    return "" if sharding is None else str(sharding.compute_kernel)


def _table_in(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


# -- optimizers ------------------------------------------------------------------------------------


def _fused_state(module: Any, optimizer: Any, name: str, tensor: Boxed) -> FusedState:
    table = _table_in(name)
    kind = fused_kind_of(module, table)
    if kind not in _KEPT:
        raise UnsupportedError(
            f"The kernels of {table!r} apply {_shown(kind)}, and what that keeps is not known here "
            f"(TorchRec calls the first state of any of them {FIRST_STATE!r}): leave `optimizer` "
            "out."
        )
    here = _kept_here(optimizer, name, table)
    if here is None:
        here = dict(_kept_elsewhere(module, table, kind, tensor))
    if here.keys() != _KEPT[kind].keys():
        raise UnsupportedError(
            f"The kernels of {table!r} apply {_shown(kind)} with options of which it keeps "
            f"{', '.join(sorted(here)) or 'nothing'}, which is not known here: leave `optimizer` "
            "out."
        )
    return FusedState(optimizer, here)


def _shown(kind: str | None) -> str:
    return "an optimizer that it does not name" if kind is None else f"FBGEMM's {kind}"


def _kept_here(optimizer: Any, name: str, table: str) -> dict[str, torch.Tensor] | None:
    """What a fused optimizer has for a table; None: the table has no share here."""
    parameter = optimizer.params.get(name)
    if parameter is None:
        return None
    kept = next(state for key, state in optimizer.state.items() if key is parameter)
    shown = {entry.removeprefix(f"{table}."): boxed(value) for entry, value in kept.items()}
    return {entry: value for entry, value in shown.items() if value is not None}


def _kept_elsewhere(
    module: Any, table: str, kind: str | None, tensor: Boxed
) -> Iterator[tuple[str, Boxed]]:
    shards = module.module_sharding_plan[table].sharding_spec.shards
    blocks = len({shard.shard_offsets[1] for shard in shards})
    for name, form in _KEPT[kind].items():
        shape = tuple(tensor.shape) if form == _POINTS else (blocks * tensor.shape[0],)
        yield name, boxed_like(tensor, shape, (), (), torch.float32)


def _tree(optimizer: Any) -> Iterator[Any]:
    """An optimizer and those it consists of."""
    yield optimizer
    for child in _children(optimizer):
        yield from _tree(child)


def _children(optimizer: Any) -> list[Any]:
    if not _is_keyed(optimizer):
        return []
    wrapped = wrapped_optimizer(optimizer)
    if wrapped is not None:
        return [wrapped]
    return [child for _, child in getattr(optimizer, "optimizers", ())]


def _is_keyed(optimizer: Any) -> bool:
    """Whether it is one of TorchRec's, which know their parameters by name."""
    keyed = sys.modules.get("torchrec.optim.keyed")
    return keyed is not None and isinstance(optimizer, keyed.KeyedOptimizer)


def _is_known(optimizer: Any) -> bool:
    """Whether it only combines others, of which there are none, or is of kernels."""
    keyed, fused = sys.modules["torchrec.optim.keyed"], sys.modules["torchrec.optim.fused"]
    return isinstance(optimizer, keyed.CombinedOptimizer | fused.FusedOptimizer)


def is_of_torchrec(module: Any) -> bool:
    """Whether a module is one whose tables TorchRec has spread over processes."""
    return has_torchrec() and isinstance(module, sys.modules[_TORCHREC].ShardedModule)


def has_torchrec() -> bool:
    """Whether TorchRec is imported, without which no module is its."""
    return _TORCHREC in sys.modules


def fused_kind_of(module: Any, table: str) -> str | None:
    """The optimizer that a table's kernels apply, on whichever rank it is, as FBGEMM calls it.

    None where TorchRec does not say.
    """
    by_type = getattr(module, "_sharding_type_to_sharding", {})
    for sharding in (*getattr(module, "_embedding_shardings", ()), *by_type.values()):
        for groups in getattr(sharding, "_grouped_embedding_configs_per_rank", ()):
            for group in groups:
                if any(one.name == table for one in group.embedding_tables):
                    kind = (group.fused_params or {}).get("optimizer")
                    return _FBGEMMS_OWN if kind is None else str(kind.value)
    return None


def wrapped_optimizer(optimizer: Any) -> Any:
    """The optimizer that one of TorchRec's passes everything on to; None: it is none of these."""
    keyed = sys.modules.get("torchrec.optim.keyed")
    if keyed is None:
        return None
    is_wrapper = isinstance(optimizer, keyed.KeyedOptimizerWrapper | keyed.OptimizerWrapper)
    return optimizer._optimizer if is_wrapper else None
