"""What becomes a variable: tensors of the checkpoint, and the form they have there."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.formats import TensorSpec
from torch_warmstart.layouts import Form, Layout
from torch_warmstart.model import Owner, Shape, Variable
from torch_warmstart.values import frozen


@frozen
class Source:
    """The tensors of the checkpoint that become a variable, and how.

    `owner` is the one of the variable's under whose name they were found.
    """

    specs: tuple[TensorSpec, ...]
    owner: Owner
    form: Form
    reason: str = ""  # how they were found, where that is not by the names themselves
    is_inferred: bool = False  # whether the names were taken for the variable's without being so
    scopes: frozenset[str] = frozenset()  # any of these was skipped; none: no scope was
    copies: tuple[TensorSpec, ...] = ()  # of the same values, under the variable's other names

    @property
    def shape(self) -> Shape | None:
        """The shape in torch; None if the layout does not take tensors like these."""
        shapes = _shapes_in_torch(self.form.layout, tuple(spec.shape for spec in self.specs))
        return shapes[self.form.part] if shapes and self.form.part < len(shapes) else None

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for sources of the same bytes, and each part of it for tensors of the same."""
        return tuple(identity_of(spec) for spec in self.specs)


@functools.lru_cache(maxsize=1024)
def _shapes_in_torch(layout: Layout, shapes: tuple[Shape, ...]) -> tuple[Shape, ...] | None:
    """As the layout has it; most tensors of a large model are of few shapes."""
    return layout.shapes_in_torch(shapes)


def with_layout(source: Source, form: Form) -> Source:
    """The same tensors, changed in another way."""
    return replace(source, form=form)


def differ(sources: Sequence[Source]) -> bool:
    """Whether they are not all the same bytes."""
    return len({source.identity for source in sources}) > 1


def fitting(sources: Sequence[Source], variable: Variable) -> list[Source]:
    """Those that have the variable's shape in torch."""
    return [s for s in sources if s.form.refusal is None and _fits(s, variable)]


def _fits(source: Source, variable: Variable) -> bool:
    try:
        return source.shape == variable.shape
    except UnsupportedError:  # whoever takes it nevertheless will hear why
        return False


def whole(sources: Sequence[Source]) -> list[Source]:
    """Without those that are made of a part of what another is made of.

    A cell's kernel and bias are not what they seem if peepholes lie beside them.
    """
    keys = [{identity_of(spec) for spec in source.specs} for source in sources]
    return [
        source
        for source, own in zip(sources, keys, strict=True)
        if not any(own < others for others in keys)
    ]


def identity_of(spec: TensorSpec) -> object:
    """Equal for keys that are the same bytes, as tied weights in a state_dict are."""
    return spec.key if spec.storage is None else spec.storage
