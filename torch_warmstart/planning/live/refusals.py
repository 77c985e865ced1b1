"""What of a live model cannot be followed when one of its tensors is made anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch

from torch_warmstart.dtypes import PLAIN
from torch_warmstart.errors import Finding
from torch_warmstart.layouts import attribute_of, is_torchs_own, torch_layer_of
from torch_warmstart.model import (
    TABLES,
    Extents,
    Variable,
    extent_of,
    model_variables,
    module_at,
    modules_of,
    named_modules,
    place_of,
)
from torch_warmstart.model.sharding import is_sharded

# What stands behind a weight's name where torch computes it of others, and what takes that off.
_UNDO = (
    (("_orig", "_mask"), "torch.nn.utils.prune.remove({module}, {leaf!r})"),
    (("_g", "_v"), "torch.nn.utils.remove_weight_norm({module}, {leaf!r})"),
    (("_orig", "_u"), "torch.nn.utils.remove_spectral_norm({module}, {leaf!r})"),
)
_MAX_DEPTH = 4  # containers within each other that are looked into; they may form circles
_BY_TORCHREC = (
    "TorchRec has spread the tables over ranks, and its kernels hold them: change the vocabulary "
    "before DistributedModelParallel; or save the model, and warm-start one of the new sizes."
)
WITH_BIAS = (torch.nn.Linear, torch.nn.Bilinear)  # whose bias has what the outputs have
_FOLLOWED = (*TABLES, *WITH_BIAS)  # layers whose sizes follow; a LazyLinear is a Linear
# Of PEFT: modules that keep a second table beside the one they wrap, by the names of their classes.
_PEFT = {"AuxiliaryTrainingWrapper", "BaseTunerLayer", "ModulesToSaveWrapper"}


def check_model(model: torch.nn.Module) -> list[Finding]:
    """What a model must not be, whichever of its tensors changes."""
    found = dict.fromkeys(why for module in modules_of(model) if (why := _why_fixed(module)))
    if _BY_TORCHREC in found:  # which wraps what is not spread by DistributedDataParallel
        found = {_BY_TORCHREC: None}
    return [Finding("model-is-fixed", "error", "model", why) for why in found]


def _why_fixed(module: torch.nn.Module) -> str | None:
    kind = type(module).__name__
    if kind == "DistributedModelParallel":
        return _BY_TORCHREC
    if kind == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
        return (
            "The model, or a part of it, is compiled: change the vocabulary first (of "
            "model._orig_mod, or before model.compile()), then compile it anew."
        )
    if isinstance(module, torch.jit.ScriptModule):
        return f"The model has a {kind}, whose tensors cannot be made anew: script it afterwards."
    if isinstance(module, torch.nn.parallel.DistributedDataParallel):
        return (
            "DistributedDataParallel keeps the old parameters in its buckets: change the "
            "vocabulary of model.module on all ranks, and wrap that anew."
        )
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = [getattr(fsdp, name, None) for name in ("FSDPModule", "FullyShardedDataParallel")]
    if any(k is not None and isinstance(module, k) for k in kinds):
        return (
            "FSDP keeps parameters of its own: change the vocabulary before the model is sharded."
        )
    return None


def why_not_made_anew(model: torch.nn.Module, variable: Variable) -> str | None:
    """Why a tensor of a model cannot be replaced, as the rest of a sentence about it."""
    tensor = variable.tensor
    if variable.is_lazy:
        return "has no shape yet: run a batch through the model first."
    if is_sharded(tensor):
        return "is sharded: change the vocabulary before the model is distributed."
    return (
        _why_not_plain(variable)
        or _why_not_here(model, variable)
        or _why_wrapped(model, variable)
        or _why_shared(model, tensor)
        or _why_held(model, tensor)
    )


def why_computed(model: torch.nn.Module, name: str) -> str | None:
    """Why what a name means is no tensor of its own, as the rest of a sentence about it."""
    path, _, leaf = name.replace("/", ".").rpartition(".")
    module = module_at(model, path)
    if module is None:
        return None
    if leaf in (*module._parameters, *module._buffers):
        return None
    where = f"model{_spelt(path)}"
    if torch.nn.utils.parametrize.is_parametrized(module, leaf):
        undo = f"torch.nn.utils.parametrize.remove_parametrizations({where}, {leaf!r})"
    else:
        own = (*module._parameters, *module._buffers)
        found = (text for parts, text in _UNDO if all(f"{leaf}{part}" in own for part in parts))
        undo = next(found, "").format(module=where, leaf=leaf)
    if not undo:
        return _why_packed(model, name) or _why_packed(model, path)
    return (
        f"is computed from other tensors, which cannot be made anew for it: call {undo}, change "
        "the vocabulary, and put it on again."
    )


def _why_packed(model: torch.nn.Module, path: str) -> str | None:
    """Of a module whose weight is no tensor: a quantised one gives it when it is called."""
    module = module_at(model, path)
    if module is None:
        return None
    own = (tensor for one in modules_of(module) for tensor in one._parameters.values())
    has_tensors = any(tensor is not None for tensor in own)
    if has_tensors or not callable(getattr(module, "weight", None)):
        return None
    return (
        f"is of a {type(module).__name__} that packs its weight, as quantised ones do: change the "
        "vocabulary before that."
    )


def _spelt(path: str) -> str:
    """How a module's path is written in Python: `.layers[0]`."""
    parts = path.split(".") if path else []
    return "".join(
        f".{part}" if part.isidentifier() else f"[{part if part.isdecimal() else repr(part)}]"
        for part in parts
    )


def why_not_in_mapping(variable: Variable) -> str | None:
    """The same for a tensor that stands in a mapping."""
    return "is sharded." if is_sharded(variable.tensor) else _why_not_plain(variable)


def _why_not_plain(variable: Variable) -> str | None:
    tensor = variable.tensor
    if type(tensor) not in PLAIN:
        return f"is a {type(tensor).__name__}, which nobody here knows how to make anew."
    if tensor.is_meta or tensor.layout is not torch.strided:
        return "is no tensor with values that lie in memory."
    if tensor.is_inference():
        return "was made under torch.inference_mode()."
    hooks = ("_backward_hooks", "_post_accumulate_grad_hooks")
    if any(getattr(tensor, name, None) for name in hooks):
        return (
            "has hooks on its gradient, which would stay with the old tensor: remove them before."
        )
    return None


def _why_not_here(model: torch.nn.Module, variable: Variable) -> str | None:
    for owner in variable.owners:
        module, _ = place_of(model, owner)
        kind = type(owner.module).__name__
        attribute = attribute_of(owner.leaf)
        if attribute != owner.leaf:
            whole = owner.state_dict_name.removesuffix(owner.leaf) + attribute
            why = why_computed(model, whole)
            if why is not None:
                return f"is a part of {whole}, which {why}"
            return f"is what {kind} computes its weight from: take that off before."
        if _has_sizes_of_its_own(module):
            return f"is of a {kind}, whose sizes are not followed."
    return None


def _has_sizes_of_its_own(module: torch.nn.Module) -> bool:
    """Whether it is one of torch's layers, or derived from one, whose sizes are not followed."""
    layer = torch_layer_of(module)
    return layer is not None and not issubclass(layer, _FOLLOWED)


def _why_wrapped(model: torch.nn.Module, variable: Variable) -> str | None:
    """Where something is around the module that has tables, or sizes, of its own."""
    modules = dict(named_modules(model, is_each_once=False))
    for owner in variable.owners:
        parts = owner.state_dict_name.split(".")
        paths = [".".join(parts[:count]) for count in range(len(parts))]
        for path in paths:
            is_theirs = path != paths[-1] and is_torchs_own(modules[path])  # and not derived
            if is_theirs and _has_sizes_of_its_own(modules[path]):
                return f"is in a {type(modules[path]).__name__}, whose sizes are not followed."
            names = {cls.__name__ for cls in type(modules[path]).__mro__}
            if names & _PEFT:
                return (
                    f"is in a {type(modules[path]).__name__} of PEFT's, which keeps a second table "
                    "beside it (modules_to_save, an adapter): merge it, or take it off, before."
                )
    return None


def _why_shared(model: torch.nn.Module, tensor: torch.Tensor) -> str | None:
    """Other tensors of the model's on the same memory would no longer be."""
    others = [(v.tensor, v.name) for v in model_variables(model) if v.tensor is not tensor]
    other = next(Extents(others).touching(extent_of(tensor)), None)
    if other is None:
        return None
    return f"shares its memory with {other}: tie them as one parameter, or give each its own."


def _why_held(model: torch.nn.Module, tensor: torch.Tensor) -> str | None:
    """Where a module has a tensor, or its memory, as a plain attribute besides, as in a list."""
    own = extent_of(tensor)
    for path, module in named_modules(model):
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers") and any(
                t is tensor or (own is not None and own.touches(extent_of(t))) for t in _in(value)
            ):
                where = f"{path}.{name}" if path else name
                return f"is held by {where} as well, which would keep the old tensor."
    return None


def _in(value: Any, depth: int = _MAX_DEPTH) -> Iterator[torch.Tensor]:
    """A tensor, or those in plain lists, tuples and dicts, also within each other."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _in(one, depth - 1)
