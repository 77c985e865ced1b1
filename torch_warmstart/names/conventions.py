"""What the framework that wrote a checkpoint calls things: the one place that asks which it was.

Whoever needs to know asks for a convention (how are names spelt, are there scopes, where are the
optimizers), never for the framework.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict

from torch import nn

from torch_warmstart.formats import ATTRIBUTE_SUFFIX, COLLECTIONS, Checkpoint, Family
from torch_warmstart.layouts import Form, mlx_forms, paddle_forms, torch_forms
from torch_warmstart.layouts.tensorflow import flax_forms, tf_forms, tf_or_flax_forms
from torch_warmstart.model import FRONTS, without_children
from torch_warmstart.values import frozen


@frozen
class Conventions(ABC):
    """What holds for every tensor of a checkpoint.

    Args:
        separator: Between the parts of a name.
        fronts: What may stand before all names of a checkpoint without being part of them.
        collections: What stands before all names where there are several such, as Flax keeps a
            layer's parameters and its running statistics apart.
        how_found: What to say of a variable that is found by a name that is not its own; "" where
            its key shows it.
        has_own_layers: Whether layers are the framework's own: with other tensors than torch's
            module has (a bias or a scale more or less), other layouts, and other settings, which
            are to be audited.
        has_keras_defaults: Whether such settings were Keras's, where nobody said others.
        has_scopes: Whether a layer may be called otherwise than its module and still be told: in
            one more scope, with its tensors numbered, or in a wrapper.
        has_optimizer_entries: Whether optimizers are entries of the file, with a state each, which
            `optimizer_entry` chooses from; else slots are tensors among the others.
    """

    separator: str
    fronts: tuple[str, ...]
    collections: tuple[str, ...]
    how_found: str
    has_own_layers: bool
    has_keras_defaults: bool
    has_scopes: bool
    has_optimizer_entries: bool

    @abstractmethod
    def spellings(self, path: str, name: str) -> Iterable[str]:
        """The keys that a tensor may have, by its layer's path in the model and its name in it."""

    def forms(self, module: nn.Module, leaf: str) -> tuple[Form, ...]:
        """The ways in which a tensor of a layer may be kept."""
        return tf_forms(module, leaf) if self.has_own_layers else torch_forms(module, leaf)

    def spelt(self, name: str) -> str:
        """A variable's name as keys are written here."""
        return name.replace(".", self.separator)

    def bare(self, key: str) -> Iterable[str]:
        """A key's plain name, and the same without what may stand before all names."""
        plain = plain_name(key)
        return dict.fromkeys((plain, *(plain.removeprefix(front) for front in self.fronts)))


def bare_name(name: str) -> str:
    """A name without what TensorFlow's savers write behind it."""
    return name.removesuffix(ATTRIBUTE_SUFFIX).removesuffix(":0")


def plain_name(name: str) -> str:
    """A name by which others are the same: with slashes, and without what wrappers put into it.

    Names in which dots and slashes stand for each other are the same too, and `layer_._0`, as
    transformers calls the first of a list for TensorFlow, is `layer.0`.
    """
    slashed = bare_name(name).replace("_._", "/").replace(".", "/")
    return without_children(slashed)


class _TensorFlow(Conventions):
    """TensorFlow's and Keras's: `scope/layer/kernel`, other layouts, slots among the tensors."""

    __slots__ = ()

    def spellings(self, path: str, name: str) -> Iterable[str]:
        dotted, joined = _joined(".", path, name), _joined("/", path, name)
        slashed = dotted.replace(".", "/")
        names = (dotted, joined, slashed, f"{joined}:0", f"{slashed}:0", slashed + ATTRIBUTE_SUFFIX)
        return dict.fromkeys(names)


class _Flax(_TensorFlow):
    """Flax's: as Keras's, but for some layouts, and with collections in front of all names."""

    __slots__ = ()

    def forms(self, module: nn.Module, leaf: str) -> tuple[Form, ...]:
        return flax_forms(module, leaf)


class _TensorFlowOrFlax(_TensorFlow):
    """Of tensors of whose names both have all: what is laid out otherwise is one or the other."""

    __slots__ = ()

    def forms(self, module: nn.Module, leaf: str) -> tuple[Form, ...]:
        return tf_or_flax_forms(module, leaf)


class _Torch(Conventions):
    """torch's: the names and the tensors of the model's own state_dict."""

    __slots__ = ()

    def spellings(self, path: str, name: str) -> Iterable[str]:
        dotted = _joined(".", path, name)
        with_dots = dotted.replace("/", ".")
        return (*(front + with_dots for front in FRONTS), dotted.replace(".", "/"))


class _Mlx(_Torch):
    """MLX's: torch's names, and convolutions whose kernels have the channels last."""

    __slots__ = ()

    def forms(self, module: nn.Module, leaf: str) -> tuple[Form, ...]:
        return mlx_forms(module, leaf)


class _Paddle(_Torch):
    """Paddle's: torch's names, and linear layers whose weights have the inputs first."""

    __slots__ = ()

    def forms(self, module: nn.Module, leaf: str) -> tuple[Form, ...]:
        return paddle_forms(module, leaf)


_TENSORFLOW = _TensorFlow(
    separator="/",
    fronts=(),
    collections=(),
    how_found="TensorFlow's name",
    has_own_layers=True,
    has_keras_defaults=True,
    has_scopes=True,
    has_optimizer_entries=False,
)
_FLAX = _Flax(
    **{
        **asdict(_TENSORFLOW),
        "fronts": (f"{COLLECTIONS[0]}/",),
        "collections": tuple(f"{collection}/" for collection in COLLECTIONS),
        "how_found": "Flax's name",
        "has_keras_defaults": False,
    }
)
_TENSORFLOW_OR_FLAX = _TensorFlowOrFlax(
    **{**asdict(_TENSORFLOW), "how_found": "TensorFlow's name, or Flax's"}
)
_TORCH = _Torch(
    separator=".",
    fronts=tuple(dict.fromkeys(filter(None, map(plain_name, FRONTS)))),
    collections=(),
    how_found="",
    has_own_layers=False,
    has_keras_defaults=False,
    has_scopes=False,
    has_optimizer_entries=True,
)
_MLX, _PADDLE = _Mlx(**asdict(_TORCH)), _Paddle(**asdict(_TORCH))
_BY_FAMILY: dict[Family, Conventions] = {
    "torch": _TORCH,
    "mlx": _MLX,
    "paddle": _PADDLE,
    "tensorflow": _TENSORFLOW,
    "flax": _FLAX,
    "tensorflow_or_flax": _TENSORFLOW_OR_FLAX,
}


def conventions_of(checkpoint: Checkpoint) -> Conventions:
    """The conventions that a checkpoint follows."""
    return _BY_FAMILY[checkpoint.family]


def _joined(separator: str, path: str, name: str) -> str:
    return separator.join(part for part in (path, name) if part)  # a table may have no leaf
