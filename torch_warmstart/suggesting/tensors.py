"""The tensors of a checkpoint that may be proposed, and which of them could be a layer of torch's.

Slots of optimizers, counters and strings are no layer's tensors and are left out, and so is what
lies behind another tensor's name, as slots of an optimizer with a name of its own do.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.formats import Checkpoint, NameKind, TensorSpec
from torch_warmstart.layouts import Form, Shape, expression, read_leaf
from torch_warmstart.layouts.tensorflow import is_optimizer_state, is_slot
from torch_warmstart.model import Variable
from torch_warmstart.names import MAX_DIGITS, NUMBERED, bare_name, conventions_of
from torch_warmstart.values import frozen

_ORIGINAL, _TRAINED = "original_module", "modules_to_save"  # peft's
ANY_SIZE = -1  # along the axis of a vocabulary, which has changed or may have


@frozen
class Tensor:
    """A tensor under the name that is proposed for it."""

    name: str
    spec: TensorSpec
    parts: tuple[str, ...]  # of the name
    is_stored: bool = False  # whether that is only where it lies in the file

    @property
    def leaf(self) -> str:
        return self.parts[-1].removeprefix("_")  # Keras 3 keeps `kernel` as `_kernel`


@frozen
class Fit:
    """Tensors that could be one tensor of a torch layer."""

    tensors: tuple[Tensor, ...]
    form: Form

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.tensors)

    @property
    def shape(self) -> Shape | None:
        """In torch."""
        return shape_in_torch(self.form, [tensor.spec for tensor in self.tensors])


@dataclass
class AvailableTensors:
    """The tensors that may be proposed."""

    tensors: list[Tensor]
    separator: str
    free_axes: Mapping[Variable, frozenset[int]]  # those along which sizes say nothing
    _known_paths: dict[str, dict[str, Tensor | None]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        taken: Iterable[str],
        free_axes: Mapping[Variable, frozenset[int]],
    ) -> AvailableTensors:
        """The tensors of a checkpoint besides those of the keys that are taken."""
        without = set(taken)
        conventions = conventions_of(checkpoint)
        separator = conventions.separator
        called = _unique_names(checkpoint)
        tensors = []
        for key in checkpoint:
            if key in without:
                continue
            name = called.get(key) or bare_name(key)
            spec = checkpoint.get(key)
            is_state = is_slot(key) or is_optimizer_state(name)  # a key may be a path through one
            if spec is None or spec.dtype is None or is_state:
                continue
            parts = tuple(re.split(r"[/.]" if separator == "." else "/", name))
            tensors.append(Tensor(name, spec, parts, checkpoint.name_kind(name) == "storage"))
        tensors = _without_originals(tensors)
        if not conventions.has_optimizer_entries:
            names = {tensor.name for tensor in tensors} | set(checkpoint)
            tensors = [t for t in tensors if t.name.rpartition("/")[0] not in names]
        return cls(sorted(tensors, key=lambda tensor: natural(tensor.name)), separator, free_axes)

    def shape_of(self, variable: Variable) -> Shape:
        """The shape that a variable's tensor must have, with `ANY_SIZE` where any will do."""
        free = self.free_axes.get(variable, frozenset())
        return tuple(ANY_SIZE if at in free else size for at, size in enumerate(variable.shape))

    def fits(self, forms: Sequence[Form], shape: Shape) -> dict[str, Fit]:
        """By the path of a layer, what could be a tensor of it in one of these forms."""
        found: dict[str, Fit] = {}
        for form in forms:
            if form.refusal is not None:
                continue
            by_path = [self._by_path(names) for names in form.names]
            for path, first in by_path[0].items():
                tensors = [first, *(others.get(path) for others in by_path[1:])]
                there = tuple(tensor for tensor in tensors if tensor is not None)
                if len(there) == len(tensors) and _fits(form, there, shape):
                    fit = found.setdefault(path, Fit(there, form))
                    if set(fit.tensors) < set(there):  # all parts of a table, not the first ones
                        found[path] = Fit(there, form)
        return found

    @functools.cached_property
    def by_parent(self) -> dict[str, list[Tensor]]:
        """The tensors below each path."""
        found: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            found.setdefault(self.separator.join(tensor.parts[:-1]), []).append(tensor)
        return found

    @functools.cached_property
    def _by_leaf(self) -> dict[str, list[Tensor]]:
        found: dict[str, list[Tensor]] = {}
        for tensor in self.tensors:
            found.setdefault(tensor.leaf, []).append(tensor)
        return found

    def _by_path(self, names: Sequence[str]) -> dict[str, Tensor | None]:
        """By the path of a layer, its tensor of one of these names; None if several are."""
        found: dict[str, Tensor | None] = {}
        for name in names:
            if read_leaf(name).child is not None:
                continue
            if name not in self._known_paths:
                self._known_paths[name] = dict(self._search(name.split("/")))
            for path, tensor in self._known_paths[name].items():
                found[path] = None if found.get(path, tensor) is not tensor else tensor
        return found

    def _search(self, pattern: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
        *before, leaf = pattern
        expressions = [expression(part) for part in before]
        for tensor in self._by_leaf.get(leaf, ()):
            parts = tensor.parts[:-1]
            cut = len(parts) - len(before)
            if cut >= 0 and all(
                e.fullmatch(part) for e, part in zip(expressions, parts[cut:], strict=True)
            ):
                yield self.separator.join(parts[:cut]), tensor


def fits_shape(form: Form, specs: Sequence[TensorSpec], shape: Shape) -> bool:
    """Whether tensors become one of this shape, in which `ANY_SIZE` is any."""
    found = shape_in_torch(form, specs)
    if found is None or len(found) != len(shape):
        return False
    return all(wanted in (size, ANY_SIZE) for size, wanted in zip(found, shape, strict=True))


def shape_in_torch(form: Form, specs: Sequence[TensorSpec]) -> Shape | None:
    """What tensors become; None if the form's layout does not take them."""
    if len(specs) != len(form.names):
        return None
    try:
        shapes = form.layout.shapes_in_torch([spec.shape for spec in specs])
    except UnsupportedError:
        return None
    return None if shapes is None else shapes[form.part]


def natural(name: str) -> list[tuple[int, str]]:
    """A key to sort names by, in which `dense_10` comes behind `dense_9`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if _is_number(part) else (-1, part) for part in parts]


def _without_originals(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Without what peft keeps of a layer from before it was trained anew."""
    replaced = {
        tensor.parts[: tensor.parts.index(_TRAINED)]
        for tensor in tensors
        if _TRAINED in tensor.parts
    }
    return [
        tensor
        for tensor in tensors
        if _ORIGINAL not in tensor.parts
        or tensor.parts[: tensor.parts.index(_ORIGINAL)] not in replaced
    ]


def _is_number(part: str) -> bool:
    return part.isdecimal() and len(part) <= MAX_DIGITS


def _fits(form: Form, tensors: Sequence[Tensor], shape: Shape) -> bool:
    return fits_shape(form, [tensor.spec for tensor in tensors], shape)


def _unique_names(checkpoint: Checkpoint) -> dict[str, str]:
    """For each key the full name that is its alone, those that say most before others."""
    found: dict[str, str] = {}
    for name, keys in checkpoint.full_names().items():
        if len(keys) == 1 and name.count("/") > 0:
            known = found.get(keys[0])
            if known is None or _says_less(checkpoint, known, name):
                found[keys[0]] = name
    return found


def _says_less(checkpoint: Checkpoint, known: str, name: str) -> bool:
    kinds = [get_args(NameKind).index(checkpoint.name_kind(n)) for n in (known, name)]
    return (kinds[0], NUMBERED in known) > (kinds[1], NUMBERED in name)
