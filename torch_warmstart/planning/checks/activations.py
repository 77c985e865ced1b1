"""Activations that the file has for a layer, and what torch's modules show of them.

Keras has them in a layer's configuration, `Dense(activation="relu")`, and torch in modules of their
own or in what a `forward` does, which nobody can see. What can be seen: an `nn.Sequential` calls
its members one after the other, and torch's own layers of a transformer keep theirs as an
attribute. Nothing is said where a layer's output leaves all of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn
from torch.nn import functional

from torch_warmstart.errors import is_number
from torch_warmstart.layouts import is_torchs_own
from torch_warmstart.planning.checks.flattenings import Difference, Modules

if TYPE_CHECKING:
    from torch_warmstart.layouts.tensorflow import Described


class _Activation(NamedTuple):
    """A module that computes what Keras has under a name."""

    kind: type[nn.Module]
    options: tuple[tuple[str, Any], ...] = ()  # that it must be made with


# keras/src/activations/activations.py.
_BY_NAME: Mapping[str, _Activation] = {
    "relu": _Activation(nn.ReLU),
    "relu6": _Activation(nn.ReLU6),
    "leaky_relu": _Activation(nn.LeakyReLU, (("negative_slope", 0.2),)),
    "gelu": _Activation(nn.GELU, (("approximate", "none"),)),
    "silu": _Activation(nn.SiLU),
    "swish": _Activation(nn.SiLU),
    "elu": _Activation(nn.ELU, (("alpha", 1.0),)),
    "celu": _Activation(nn.CELU, (("alpha", 1.0),)),
    "selu": _Activation(nn.SELU),
    "mish": _Activation(nn.Mish),
    "tanh": _Activation(nn.Tanh),
    "hard_tanh": _Activation(nn.Hardtanh, (("min_val", -1.0), ("max_val", 1.0))),
    "tanh_shrink": _Activation(nn.Tanhshrink),
    "sigmoid": _Activation(nn.Sigmoid),
    "log_sigmoid": _Activation(nn.LogSigmoid),
    "hard_sigmoid": _Activation(nn.Hardsigmoid),
    "hard_silu": _Activation(nn.Hardswish),
    "hard_swish": _Activation(nn.Hardswish),
    "softplus": _Activation(nn.Softplus, (("beta", 1.0),)),
    "softsign": _Activation(nn.Softsign),
    "softmax": _Activation(nn.Softmax),
    "log_softmax": _Activation(nn.LogSoftmax),
}
# Of those that are layers: torch's module, the option that it is made with, and what the layer
# calls it, before Keras 3 too.
_BY_CLASS: Mapping[str, tuple[type[nn.Module], str, tuple[str, ...]]] = {
    "LeakyReLU": (nn.LeakyReLU, "negative_slope", ("negative_slope", "alpha")),
    "ReLU": (nn.LeakyReLU, "negative_slope", ("negative_slope",)),
    "ELU": (nn.ELU, "alpha", ("alpha",)),
}
_MOST = 1e6  # of such an option; anything beyond is no activation
_NONE = (None, "linear")
_CLOSE, _CLOSE_BY = 1e-9, 1e-6  # of numbers near zero; of their size
# An activation may stand behind these as well as before: they take values as they are, ...
_TRANSPARENT = (nn.modules.dropout._DropoutNd, nn.Identity, nn.Flatten, nn.Unflatten)
_LARGEST = (nn.modules.pooling._MaxPoolNd,)  # ... or the largest, if it keeps their order.
_TURN = {"gelu", "silu", "swish", "mish", "hard_silu", "hard_swish", "softmax", "log_softmax"}
# Keras before 3 had another function of this name, and the audit of the module says so.
_NOT_SURE = (nn.Hardsigmoid,)
_WITH_ACTIVATION = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_OF_FUNCTIONS: Mapping[object, nn.Module] = {
    functional.relu: nn.ReLU(),
    functional.gelu: nn.GELU(),
    functional.silu: nn.SiLU(),
    functional.elu: nn.ELU(),
    functional.leaky_relu: nn.LeakyReLU(),
}


class Follower(NamedTuple):
    """What a layer's output goes through at once."""

    called: str  # in the model
    module: nn.Module


def find_activations(
    modules: Modules, described: Mapping[nn.Module, Described]
) -> Iterator[tuple[str, Difference]]:
    """What a module has behind a layer that the file says otherwise, and the layer's name."""
    names = _names_of(modules)
    for module, layer in described.items():
        wanted = _stated(layer)
        if wanted in _NONE:
            continue
        follower = _follower(module, wanted, names, modules, described)
        if follower is not None:
            yield from ((names[module], found) for found in _compare(follower, wanted))


def told_activations(
    modules: Modules, described: Mapping[nn.Module, Described]
) -> frozenset[nn.Module]:
    """The modules that compute just the activations which the file has for layers before them."""
    names = _names_of(modules)
    found = set()
    for module, layer in described.items():
        stated = _stated(layer)
        wanted = _known(stated)
        if wanted is None or wanted.kind in _NOT_SURE:
            continue
        follower = _follower(module, stated, names, modules, described)
        if follower is not None and _is(follower.module, wanted):
            found.add(follower.module)
    return frozenset(found)


def _names_of(modules: Modules) -> dict[nn.Module, str]:
    """The name of each module that has only one: what is called in two places, is behind two."""
    found: dict[nn.Module, list[str]] = {}
    for name, module in modules.items():
        found.setdefault(module, []).append(name)
    return {module: names[0] for module, names in found.items() if len(names) == 1}


def _stated(layer: Described) -> Any:
    """The activation that the file has for a layer: a name; or a function's own configuration."""
    return (layer.options or {}).get("activation")


def _follower(
    module: nn.Module,
    wanted: Any,
    names: Mapping[nn.Module, str],
    modules: Modules,
    described: Mapping[nn.Module, Described],
) -> Follower | None:
    """What follows a layer for certain; None where its output goes who knows where."""
    turns = (wanted in _TURN) if isinstance(wanted, str) else _known(wanted) is None
    through = _TRANSPARENT if turns else (*_TRANSPARENT, *_LARGEST)
    name = names.get(module)
    if name is None:
        return None
    behind = _behind_in_transformer(name, module, modules)
    if behind is not None:
        return behind
    for called, other in _behind(name, modules):
        if isinstance(other, through):
            continue
        if not _is_torchs(other):
            return None
        if _is_same_layer(described.get(module), described.get(other)):
            return _follower(other, wanted, names, modules, described)
        return Follower(called, other)
    return None


def _behind(name: str, modules: Modules) -> Iterator[tuple[str, nn.Module]]:
    """What an nn.Sequential calls behind a module, and the one that it is in behind itself.

    A module that is called twice, or has hooks, may be followed by anything.
    """
    parent = name.rpartition(".")[0]
    around = modules.get(parent)
    if not name or around is None or not _calls_in_order(around):
        return
    members = list(around._modules.items())
    at = [at for at, (_, member) in enumerate(members) if member is modules[name]]
    if len(at) != 1:
        return
    for called, member in members[at[0] + 1 :]:
        path = f"{parent}.{called}" if parent else called
        if member is None:
            return
        if _calls_in_order(member):
            yield from _within(path, member)
        else:
            yield path, member
    yield from _behind(parent, modules)


def _within(name: str, sequential: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for called, member in sequential._modules.items():
        if member is None:
            continue
        if _calls_in_order(member):
            yield from _within(f"{name}.{called}", member)
        else:
            yield f"{name}.{called}", member


def _calls_in_order(module: nn.Module) -> bool:
    is_plain = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return is_plain and not module._forward_hooks and not module._forward_pre_hooks


def _is_torchs(module: nn.Module) -> bool:
    """Whether it is a layer of torch's own, with nothing that changes what it computes."""
    return is_torchs_own(module) and not module._forward_hooks and not module._forward_pre_hooks


def _is_same_layer(one: Described | None, other: Described | None) -> bool:
    """Whether two modules are halves of one layer, as those of a separable convolution are."""
    return one is not None and other is not None and one.name == other.name != ""


def _behind_in_transformer(name: str, module: nn.Module, modules: Modules) -> Follower | None:
    """What torch's layer of a transformer applies behind the first of its two products."""
    parent, _, own = name.rpartition(".")
    layer = modules.get(parent)
    is_torchs = isinstance(layer, _WITH_ACTIVATION) and _is_torchs(layer)
    if not is_torchs or own != "linear1" or module is not getattr(layer, own, None):
        return None
    activation = getattr(layer, "activation", None)
    found = activation if isinstance(activation, nn.Module) else _OF_FUNCTIONS.get(activation)
    called = f"{parent}.activation".removeprefix(".")
    return Follower(called, found) if found is not None else None


# -- what is compared ------------------------------------------------------------------------------


def _compare(follower: Follower, wanted: Any) -> Iterator[Difference]:
    module = follower.module
    called = f"{spelt(module)} ({follower.called})"
    known = _known(wanted)
    says = f"the file says activation={_said(wanted)}"
    if not _is_activation(module):
        put = f"Put {_written(known)}" if known is not None else "Put what it does"
        yield f"{called} follows it, with no activation between; {says}.", f"{put} between them."
    elif known is not None and not _is(module, known):
        is_alike = isinstance(module, known.kind)
        options = [f"{n}={getattr(module, n)!r}" for n, _ in known.options if is_alike]
        shown = f"{called} with {', '.join(options)}" if options else called
        yield f"{shown} follows it; {says}.", f"Make it {_written(known)}."


def _known(wanted: Any) -> _Activation | None:
    """What computes an activation; None for what torch has no module of, or nobody knows."""
    if isinstance(wanted, str):
        return _BY_NAME.get(wanted)
    kind, config = (
        (wanted.get("class_name"), wanted.get("config"))
        if isinstance(wanted, Mapping)
        else (None, None)
    )
    known = _BY_CLASS.get(kind) if isinstance(kind, str) else None
    if known is None or not isinstance(config, Mapping):
        return None
    if config.get("max_value") is not None or config.get("threshold"):
        return None
    module, option, keys = known
    value = next((config[key] for key in keys if key in config), None)
    if not isinstance(value, float | int) or abs(value) > _MOST:
        return None
    return _Activation(module, ((option, float(f"{value:.6g}")),))  # which was a float32


def _is_activation(module: nn.Module) -> bool:
    is_one = type(module).__module__ == nn.ReLU.__module__
    return is_one and not isinstance(module, nn.MultiheadAttention)


def _is(module: nn.Module, wanted: _Activation) -> bool:
    if type(module) is not wanted.kind:
        return False
    return all(_equal(getattr(module, name), value) for name, value in wanted.options)


def _equal(found: Any, wanted: Any) -> bool:
    return is_close(found, wanted) if isinstance(wanted, float) else bool(found == wanted)


def is_close(found: Any, wanted: float) -> bool:
    """Whether a number is one of the file's: a decimal in JSON, perhaps after a subtraction."""
    return is_number(found) and abs(found - wanted) <= _CLOSE + _CLOSE_BY * abs(wanted)


def _written(wanted: _Activation) -> str:
    options = [f"{name}={value!r}" for name, value in wanted.options]
    if wanted.kind in (nn.Softmax, nn.LogSoftmax):
        options = ["dim=-1"]
    needed = options if wanted.kind is not nn.GELU else ()
    return f"nn.{wanted.kind.__name__}({', '.join(needed)})"


def _said(wanted: Any) -> str:
    if isinstance(wanted, Mapping):  # a layer's, or a function's of the user's own
        named = (wanted.get(key) for key in ("registered_name", "class_name", "config"))
        texts = [text for text in named if isinstance(text, str) and text != "function"]
        wanted = next(iter(texts), "...")
    return f"{wanted!r:.60}"


def spelt(module: nn.Module) -> str:
    """A module's class, as a line of code names it."""
    return f"nn.{type(module).__name__}"
