"""Several tensors that stand one below the other in one of a layer's, as a rule of a user's says.

Query, key and value that were layers of their own, for one `qkv`: each is laid out as the layer's
own would be, and its outputs follow those of the one before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from torch_warmstart.layouts.layout import IDENTITY, Form, Layout, Shape, Tensors, cat
from torch_warmstart.layouts.outputs import is_untransposed_linear, output_axis

_LEAVES = ("weight", "bias")


def joined_forms(
    module: nn.Module, leaf: str, forms: Sequence[Form], shapes: Sequence[Shape]
) -> Iterator[Form]:
    """The forms of tensors of these shapes, joined, by those that one alone could have."""
    if leaf not in _LEAVES or not _has_plain_outputs(module):
        return
    for form in forms:
        is_one = len(form.names) == 1 and form.refusal is None and form.layout.for_slots is None
        if is_one and all(form.layout.shapes_in_torch([shape]) for shape in shapes):
            yield joined_form(module, leaf, [form] * len(shapes), shapes)


def joined_form(
    module: nn.Module, leaf: str, parts: Sequence[Form], shapes: Sequence[Shape]
) -> Form:
    """That of tensors which are kept in these forms each; refused if one of them is."""
    axis = output_axis(module) if leaf == "weight" else 0
    layout = _joined(tuple(part.layout for part in parts), tuple(shapes), axis)
    refusal = next((part.refusal for part in parts if part.refusal is not None), None)
    is_presumed = any(part.is_presumed for part in parts)
    names = tuple(part.names[0] for part in parts)
    return Form(names, layout, refusal=refusal, is_presumed=is_presumed, parts=tuple(parts))


def _has_plain_outputs(module: nn.Module) -> bool:
    """Whether more outputs are further rows of its tensors: of groups they are not."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.groups == 1 and not module.transposed
    return isinstance(module, nn.Linear) or is_untransposed_linear(module)


@functools.lru_cache(maxsize=256)
def _joined(layouts: tuple[Layout, ...], shapes: tuple[Shape, ...], axis: int) -> Layout:
    def to_torch(*tensors: torch.Tensor) -> Tensors:
        made = zip(layouts, tensors, strict=True)
        return (cat([layout.to_torch(tensor)[0] for layout, tensor in made], axis),)

    def to_tf(tensor: torch.Tensor) -> Tensors:
        found = (layout.shapes_in_torch([s]) for layout, s in zip(layouts, shapes, strict=True))
        parts = torch.split(tensor, [made[0][axis] for made in found if made], axis)
        return tuple(layout.to_tf(part)[0] for layout, part in zip(layouts, parts, strict=True))

    own = dict.fromkeys(layout.name for layout in layouts if layout is not IDENTITY)
    name = f"joined[{', '.join(own)}]" if own else "joined"
    return Layout(name, to_torch, to_tf, num_tf=len(layouts))
