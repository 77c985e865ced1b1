"""Layers of a model whose tensors the checkpoint keeps in one: [layers, ...], as a scan does.

`layers.0.mlp.weight` to `layers.11.mlp.weight` are the rows of `layers/mlp/kernel`, if it has 12
and each has their shape; or lie along its second axis, as those of T5X do. Only what no tensor of
its own is left for, is looked for so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from torch_warmstart.layouts import IDENTITY, Form, stacked
from torch_warmstart.model import Owner, Variable
from torch_warmstart.names import Finder
from torch_warmstart.suggesting.similarity import ALIKE, MARGIN, alikeness, shared_words, tokens_of
from torch_warmstart.suggesting.suggestions import Suggestion
from torch_warmstart.suggesting.tensors import AvailableTensors, Tensor
from torch_warmstart.values import frozen

_FEWEST = 2  # layers


@frozen
class _Group:
    """Variables that differ in one number of their names, which counts from 0."""

    name: str  # without the number
    variables: tuple[Variable, ...]

    @property
    def owner(self) -> Owner:
        return self.variables[0].owners[0]


def stacked_items(
    finder: Finder, available: AvailableTensors, lost: Sequence[Variable], taken: Collection[str]
) -> dict[Variable, Suggestion]:
    """A suggestion for each variable that one row of a tensor could be.

    Args:
        finder: Of the checkpoint.
        available: Its tensors.
        lost: Variables for which nothing else is proposed.
        taken: Keys that are proposed for others.
    """
    free = [t for t in available.tensors if t.spec.key not in taken and len(t.spec.shape) > 1]
    groups = list(_groups(lost))
    pairs = [
        (score, number, tensor)
        for number, group in enumerate(groups)
        for score, tensor in _fitting(finder, group, free)
    ]
    pairs.sort(key=lambda pair: -pair[0])
    found: dict[Variable, Suggestion] = {}
    used: set[str] = set()
    for score, number, tensor in pairs:
        group = groups[number]
        rivals = [s for s, n, t in pairs if (n == number) != (t is tensor) and s > score - MARGIN]
        if rivals or tensor.spec.key in used or group.variables[0] in found:
            continue
        used.add(tensor.spec.key)
        (axis,) = _axes(_forms_of(finder, group), group, tensor)
        found |= {v: _item(v, at, tensor, group, axis) for at, v in enumerate(group.variables)}
    return found


def _groups(variables: Sequence[Variable]) -> Iterator[_Group]:
    by_name: dict[tuple[tuple[str, ...], int], dict[int, Variable]] = {}
    for variable in variables:
        parts = variable.owners[0].name.split(".")
        for at, part in enumerate(parts):
            if part.isdecimal() and str(int(part)) == part:
                rest = (*parts[:at], "", *parts[at + 1 :])
                by_name.setdefault((rest, at), {})[int(part)] = variable
    for (rest, _), numbered in by_name.items():
        is_counted = sorted(numbered) == list(range(len(numbered)))
        group = tuple(numbered[number] for number in sorted(numbered))
        if is_counted and len(group) >= _FEWEST and len({v.shape for v in group}) == 1:
            yield _Group(".".join(part for part in rest if part), group)


def _fitting(
    finder: Finder, group: _Group, tensors: Sequence[Tensor]
) -> Iterator[tuple[float, Tensor]]:
    """The tensors that a group could be the rows of, and how alike the names are."""
    forms = _forms_of(finder, group)
    names = {name for form in forms for name in form.names[0]}
    is_layers = any(form.layout is not IDENTITY for form in forms)
    fitting = [
        tensor
        for tensor in tensors
        if (tensor.leaf in names or not is_layers) and len(_axes(forms, group, tensor)) == 1
    ]
    if fitting:
        scores = alikeness([tokens_of(group.name)], [tokens_of(t.name) for t in fitting])[0]
        yield from ((float(s), t) for s, t in zip(scores, fitting, strict=True) if s >= ALIKE)


def _forms_of(finder: Finder, group: _Group) -> list[Form]:
    return [f for f in finder.forms(group.owner) if f.refusal is None and len(f.names) == 1]


def _axes(forms: Sequence[Form], group: _Group, tensor: Tensor) -> list[int]:
    """The axes along which a tensor has a row for each of a group, of its shape."""
    shape, layouts = tensor.spec.shape, {form.layout for form in forms} or {IDENTITY}
    return [
        axis
        for axis in range(min(2, len(shape)))
        if shape[axis] == len(group.variables)
        and (row := (*shape[:axis], *shape[axis + 1 :])) is not None
        and any(each.shapes_in_torch([row]) == (group.variables[0].shape,) for each in layouts)
    ]


def _item(variable: Variable, number: int, tensor: Tensor, group: _Group, axis: int) -> Suggestion:
    words = ", ".join(shared_words(tokens_of(group.name), tokens_of(tensor.name)))
    reason = f"one of the {len(group.variables):,} that lie in one tensor, by its number"
    return Suggestion(
        variable.owners[0].name,
        (tensor.name,),
        "medium",
        f"{reason}; names agree in {words}" if words else reason,
        layout=stacked(number, axis),
    )
