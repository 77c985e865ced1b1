"""How tensors change between TensorFlow and torch: named pure functions, each with its inverse.

A layout takes the tensors that TensorFlow keeps for one thing (a kernel; query, key and value) and
returns those that torch keeps for it. Both directions are written down, and a test says that each
undoes the other. Shapes are not written down a second time: they are what the function does to
tensors without data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from torch_warmstart.errors import UnsupportedError
from torch_warmstart.values import frozen

Shape = tuple[int, ...]
Tensors = tuple[torch.Tensor, ...]


@frozen
class Layout:
    """A reversible change from TensorFlow's tensors to torch's.

    Args:
        name: For people, and for `var_name_to_layout`.
        to_torch: From TensorFlow's tensors to torch's; returns views where it can. It raises
            UnsupportedError with the reason where these tensors cannot be what torch needs, and
            what torch raises where shapes do not fit.
        to_tf: The inverse.
        num_tf: How many tensors `to_torch` takes.
        ranks: The rank of each of them; None: any.
        for_slots: What an optimizer's slots of these tensors take instead, where a value is not
            just moved: a constant that is added to a weight is not added to its gradient.
    """

    name: str
    to_torch: Callable[..., Tensors]
    to_tf: Callable[..., Tensors]
    num_tf: int = 1
    ranks: tuple[int | None, ...] | None = None
    for_slots: Layout | None = None

    def shapes_in_torch(self, shapes: Sequence[Shape]) -> tuple[Shape, ...] | None:
        """The shapes of torch's tensors; None if tensors of these shapes cannot be changed.

        Raises UnsupportedError, with the reason, as `to_torch` does.
        """
        if self is IDENTITY:
            return tuple(shapes)
        ranks = self.ranks or (None,) * self.num_tf
        if len(shapes) != self.num_tf or any(
            rank not in (None, len(shape)) for rank, shape in zip(ranks, shapes, strict=True)
        ):
            return None
        try:
            results = self.to_torch(*(torch.empty(shape, device="meta") for shape in shapes))
        except UnsupportedError:  # which is a RuntimeError too
            raise
        except (RuntimeError, IndexError):  # how torch says that shapes do not fit
            return None
        return tuple(tuple(result.shape) for result in results)

    @property
    def slot_layout(self) -> Layout:
        """What an optimizer's slots take."""
        return self.for_slots or self


def cat(parts: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """`torch.cat`, also for shapes alone.

    On meta, torch's own imports torch._dynamo and Triton: more than a second, and behind an import
    of TensorFlow it ends the process (tensorflow/tensorflow#124205).
    """
    first = parts[0]
    if not first.is_meta:
        return torch.cat(tuple(parts), dim)
    size, at = sum(part.shape[dim] for part in parts), dim % first.dim()
    shapes = {(*part.shape[:at], size, *part.shape[at + 1 :]) for part in parts}
    if len(shapes) > 1:
        raise RuntimeError("tensors of other sizes than each other")
    return first.new_empty(shapes.pop())


def _same(*tensors: torch.Tensor) -> Tensors:
    return tensors


IDENTITY = Layout("identity", _same, _same)


@frozen
class Form:
    """One way in which TensorFlow keeps a tensor of a torch layer.

    `names` has, for each tensor the layout takes, what it may be called within its layer, as
    `layouts/leaf.py` reads it.
    """

    names: tuple[tuple[str, ...], ...]
    layout: Layout = IDENTITY
    part: int = 0  # which of the layout's results it is
    refusal: str | None = None  # why there is no layout for it
    is_presumed: bool = False  # whether the file leaves it open, and it is the most likely one
    evidence: str = ""  # what tells that it is the layer's, where its names are not the layer's own
    parts: tuple[Form, ...] = ()  # of tensors that a user has joined: how each is kept
