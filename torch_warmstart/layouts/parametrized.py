"""A layer's weight under other attributes: normalised, pruned, or computed from what is trained.

torch.nn.utils.parametrizations keeps what it computes a weight from as
`parametrizations.weight.original`, or `original0` and `original1`; the functions before it, and
torch.nn.utils.prune, as `weight_g` and `weight_v`, or `weight_orig` beside `weight_u`, `weight_v`
or `weight_mask`. Either way it is still the layer's weight, whichever of the two sides has it so.

weight norm     weight = g * v / norm(v); the norm is over all axes that g has of size 1
spectral norm   weight = orig / (u . orig v), with the orig as a matrix of its outputs' axis
pruning         weight = orig * mask
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.layouts.attention import projection_forms, projections_of
from torch_warmstart.layouts.layout import IDENTITY, Form, Layout, Shape, Tensors
from torch_warmstart.layouts.named import TRANSPOSE, channels_last_of
from torch_warmstart.values import frozen

_NEW = re.compile(r"parametrizations\.(\w+)\.original([01]?)")
_OLD = re.compile(r"(\w+)_(orig|g|v)")
_VECTOR = re.compile(r"parametrizations\.(\w+)\.(\d+)\._(u|v)|(\w+)_(u|v)")
_PART = re.compile(r"parametrizations\.(\w+)\..+|(\w+)_(?:orig|g|v|u|mask)")
_ALONG = 0.9  # a cosine; of vectors that were drawn and never used it is about 0
_OF_PADDLE = "Paddle keeps the weights of its linear layers as [inputs, outputs], not as torch does"
_NOT_INVERTED = "{} computes it from other values than a weight; which they would be is not known"


@frozen
class Original:
    """What a tensor is of the weight that is computed from it."""

    leaf: str  # what the layer calls the weight
    part: str  # "orig": as the weight itself; "g" and "v" of weight norm
    dim: int = 0  # of weight norm
    refusal: str | None = None  # a parametrization that nobody can go back from
    is_divided: bool = False  # by a spectral norm


def original_of(module: nn.Module, leaf: str) -> Original | None:
    """Which part of which weight a tensor of a layer is; None if it is what it seems."""
    new = _NEW.fullmatch(leaf)
    if new is not None:
        return _of_parametrization(module, new[1], new[2])
    old = _OLD.fullmatch(leaf)
    if old is None:
        return None
    for hook in module._forward_pre_hooks.values():
        kind = type(hook).__name__
        if getattr(hook, "name", getattr(hook, "_tensor_name", None)) != old[1]:
            continue
        if kind == "WeightNorm" and old[2] in "gv":
            return Original(old[1], old[2], _dim(hook))
        if old[2] == "orig":
            return Original(old[1], "orig", is_divided=kind == "SpectralNorm")
    return None


def attribute_of(leaf: str) -> str:
    """The layer's attribute that a tensor is, or that by its name it is a part of: `weight`."""
    match = _PART.fullmatch(leaf)
    return (match[1] or match[2]) if match else leaf


@frozen
class Vector:
    """By what a spectral norm estimates how long a weight is: u and v, with `orig v = norm * u`."""

    weight: str  # what the layer calls it
    axis: int | None  # of the weight, along which it has a number each; None: along several


def vector_of(module: nn.Module, leaf: str) -> Vector | None:
    """Which vector of a spectral norm a tensor of a layer is; None if it is none."""
    match = _VECTOR.fullmatch(leaf)
    if match is None:
        return None
    weight, which = match[1] or match[4], match[3] or match[5]
    norm, original = _spectral_norm(module, weight, match[2])
    if norm is None:
        return None
    own = _dim(norm) % original.dim()
    return Vector(weight, own if which == "u" else 1 - own if original.dim() == 2 else None)


def is_mask(module: nn.Module, leaf: str) -> bool:
    """Whether a tensor of a layer says which numbers of a weight have been pruned."""
    hooks = module._forward_pre_hooks.values() if leaf.endswith("_mask") else ()
    return any(getattr(hook, "_tensor_name", None) == leaf.removesuffix("_mask") for hook in hooks)


def _spectral_norm(module: nn.Module, weight: str, number: str | None) -> tuple[object, Any]:
    """The norm of that name, and what it divides. To ask for the weight moves u."""
    if number is not None:
        lists: Any = module.parametrizations
        found = lists[weight][int(number)]
        is_one = type(found).__name__ == "_SpectralNorm"
        return found if is_one else None, getattr(lists[weight], "original", None)
    for hook in module._forward_pre_hooks.values():
        if type(hook).__name__ == "SpectralNorm" and getattr(hook, "name", None) == weight:
            return hook, module._parameters[f"{weight}_orig"]
    return None, None


def shape_of_whole(module: nn.Module, original: Original, own: Shape) -> Shape:
    """A weight's shape, by a part's own. The weight itself is not asked for: that may change it."""
    if original.part != "g":
        return own
    if (v := module._parameters.get(f"{original.leaf}_v")) is None:
        lists: Any = module.parametrizations
        v = lists[original.leaf].original1
    return tuple(v.shape)


def _of_parametrization(module: nn.Module, leaf: str, number: str) -> Original | None:
    lists: Any = getattr(module, "parametrizations", {})
    if leaf not in lists or len(lists[leaf]) != 1:
        return Original(leaf, "orig", refusal=_NOT_INVERTED.format("a chain of parametrizations"))
    parametrization = lists[leaf][0]
    kind = type(parametrization).__name__
    if kind == "_WeightNorm" and number:
        return Original(leaf, "gv"[int(number)], _dim(parametrization))
    if kind == "_SpectralNorm":
        return Original(leaf, "orig", is_divided=True)
    return Original(leaf, "orig", refusal=_NOT_INVERTED.format(kind))


def _dim(normed: object) -> int:
    dim = getattr(normed, "dim", 0)
    return -1 if dim is None else int(dim)


def forms_of_original(original: Original, forms: tuple[Form, ...]) -> tuple[Form, ...]:
    """The forms of a part of a weight, from those that the weight itself would have."""
    if original.refusal is not None:
        return tuple(Form(form.names, refusal=form.refusal or original.refusal) for form in forms)
    if original.part == "orig":
        return forms
    part = "gv".index(original.part)
    return tuple(
        Form(
            form.names,
            weight_norm(form.layout, form.part, original.dim),
            part=part,
            refusal=form.refusal,
            is_presumed=form.is_presumed,
        )
        for form in forms
    )


@functools.lru_cache(maxsize=256)
def weight_norm(layout: Layout, part: int, dim: int) -> Layout:
    """A plain weight as g and v: its norm, and itself."""

    def to_torch(*tensors: torch.Tensor) -> Tensors:
        weight = layout.to_torch(*tensors)[part]
        axes = [axis for axis in range(weight.dim()) if axis != dim % weight.dim()]
        return _norm(weight, None if dim == -1 else axes), weight

    def to_tf(g: torch.Tensor, v: torch.Tensor) -> Tensors:
        return layout.to_tf(_weight_normed(g, v)[0])

    name = "weight_norm" if layout is IDENTITY else f"weight_norm[{layout.name}]"
    return Layout(name, to_torch, to_tf, layout.num_tf, layout.ranks, _NO_SLOTS)


def _refused_slots(*_: torch.Tensor) -> Tensors:
    raise UnsupportedError("a weight's slots are not those of the values that it is computed from")


_NO_SLOTS = Layout("no_slots", _refused_slots, _refused_slots)


def _no_inverse(*_: torch.Tensor) -> Tensors:
    raise UnsupportedError("what a weight was computed from cannot be told from it")


# -- a plain weight from what another was computed from --------------------------------------------


def _weight_normed(g: torch.Tensor, v: torch.Tensor) -> Tensors:
    if g.dim() not in (0, v.dim()):
        raise RuntimeError("a norm of another rank")
    if g.dim() and any(g.shape[axis] not in (1, v.shape[axis]) for axis in range(v.dim())):
        raise RuntimeError("a norm of another weight")
    if v.is_meta:
        return (_like(v),)
    axes = [axis for axis in range(v.dim()) if g.dim() and g.shape[axis] == 1]
    return (v * (g / _norm(v, axes if g.dim() else None)),)


def _split(weight: torch.Tensor) -> Tensors:
    return _norm(weight, [*range(1, weight.dim())]), weight


def _norm(weight: torch.Tensor, axes: Sequence[int] | None) -> torch.Tensor:
    """Of size 1 along these axes; one number for None. Of shapes alone it is a shape: see `cat`."""
    if not weight.is_meta:
        found: torch.Tensor = torch.linalg.vector_norm(
            weight, dim=axes or None, keepdim=axes is not None
        )
        return found
    own = enumerate(weight.shape)
    return weight.new_empty(() if axes is None else [1 if at in axes else n for at, n in own])


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.new_empty(tensor.shape)


@functools.lru_cache(maxsize=16)
def _merged_spectral(usual: int) -> Layout:
    """A weight divided by its norm, as the matrix that has one axis in front.

    No file says which: it is one that the sizes of u and v fit. Of several it is the one of which u
    is the direction that it turns v into, which torch makes it each time that it uses the two;
    before that, the usual one.
    """

    def to_torch(original: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> Tensors:
        axes = sorted(range(original.dim()), key=lambda axis: axis != usual)
        matrices = [original.movedim(axis, 0).flatten(1) for axis in axes]
        fitting = [m for m in matrices if tuple(m.shape) == (*u.shape, *v.shape)]
        if not fitting:
            raise RuntimeError("vectors of another weight")
        if original.is_meta:
            return (_like(original),)
        turned = [torch.mv(matrix, v) for matrix in fitting]
        norms = [torch.dot(u, each) for each in turned]
        own = 0
        if len(norms) > 1:
            pairs = zip(norms, turned, strict=True)
            along = [float(norm / torch.linalg.vector_norm(each)) for norm, each in pairs]
            best = max(range(len(along)), key=along.__getitem__)
            own = best if along[best] > _ALONG else 0
        return (original / norms[own],)

    return Layout("spectral_norm", to_torch, _no_inverse, num_tf=3, for_slots=_NO_SLOTS)


def _pruned(original: torch.Tensor, mask: torch.Tensor) -> Tensors:
    if original.shape != mask.shape:
        raise RuntimeError("a mask of another weight")
    return (_like(original) if original.is_meta else original * mask,)


MERGED_NORM = Layout("weight_norm", _weight_normed, _split, num_tf=2, for_slots=_NO_SLOTS)
MERGED_MASK = Layout("pruned", _pruned, _no_inverse, num_tf=2, for_slots=_NO_SLOTS)


def torch_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which torch may have saved a tensor of a layer; its own name is the first."""
    own = _by_its_own_name(leaf)
    vector = _VECTOR.fullmatch(leaf)
    if vector is not None and vector_of(module, leaf) is not None:
        return (*own, Form(((_other_vector(vector),),)))
    original = original_of(module, leaf)
    if original is not None:
        plain = forms_of_original(original, (Form(((original.leaf,),)),))
        other = _other_spellings(original.leaf, original.part)
        return (*own, *plain, *(Form(((name,),)) for name in other if name != leaf))
    if isinstance(module, nn.MultiheadAttention) and leaf in projections_of(module):
        return (*own, *projection_forms(leaf))
    if not leaf.startswith("weight"):
        return own
    # torch.nn.utils.spectral_norm, old and new: the outputs are in front, by default.
    usual = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
    return _forms_of_weight(leaf, usual)


def mlx_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which MLX may have saved a tensor of a layer: by torch's names."""
    if isinstance(module, nn.modules.conv._ConvNd):
        original = original_of(module, leaf)
        kernel = channels_last_of(module)
        if original is not None:
            return forms_of_original(original, (Form(((original.leaf,),), kernel),))
        if leaf == "weight":
            return (Form(((leaf,),), kernel),)
    return torch_forms(module, leaf)


def paddle_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which Paddle may have saved a tensor of a layer: by torch's names."""
    forms = torch_forms(module, leaf)
    if leaf.endswith("bias") or not isinstance(module, nn.Linear | nn.MultiheadAttention):
        return forms
    if isinstance(module, nn.Linear) and leaf == "weight":
        return (Form(((leaf,),), TRANSPOSE),)
    return tuple(replace(form, refusal=_OF_PADDLE) for form in forms)


@functools.lru_cache(maxsize=256)
def _by_its_own_name(leaf: str) -> tuple[Form, ...]:
    return (Form(((leaf,),)),)


@functools.lru_cache(maxsize=256)  # the same for all layers but a few
def _forms_of_weight(leaf: str, usual: int) -> tuple[Form, ...]:
    names = {part: _other_spellings(leaf, part) for part in ("orig", "g", "v")}
    u, v = ((f"{leaf}_{x}", _new_vector(leaf, x)) for x in "uv")
    return (
        *_by_its_own_name(leaf),
        Form((names["g"], names["v"]), MERGED_NORM),
        Form((names["orig"], u, v), _merged_spectral(usual)),
        Form((names["orig"], (f"{leaf}_mask",)), MERGED_MASK),
    )


def _other_vector(vector: re.Match[str]) -> str:
    """What the old function calls a vector that the new one has, and the other way round."""
    if vector[1] is not None:
        return f"{vector[1]}_{vector[3]}"
    return _new_vector(vector[4], vector[5])


def _new_vector(leaf: str, which: str) -> str:
    return f"parametrizations.{leaf}.0._{which}"


def _other_spellings(leaf: str, part: str) -> tuple[str, ...]:
    """What the old functions call a part, and what the new ones do."""
    new = {"orig": "original", "g": "original0", "v": "original1"}[part]
    return f"{leaf}_{part}", f"parametrizations.{leaf}.{new}"
