"""What wrappers put into names: no part of what a user called a tensor.

Some are modules with the user's own as a child, anywhere in a model: torch.compile, activation
checkpointing, FSDP, TorchRec's DistributedModelParallel, Lightning Fabric. DataParallel and
DistributedDataParallel call that child `module`, as people call modules of their own, too: in a
model one can look, in a name it counts only at the front, before all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

DATA_PARALLEL = "module"
CHILDREN = frozenset(
    {
        "_orig_mod",
        "_checkpoint_wrapped_module",
        "_fsdp_wrapped_module",
        "_dmp_wrapped_module",
        "_forward_module",
    }
)
# Fabric has the user's model twice: in what runs, a DistributedDataParallel perhaps, and by itself.
TWICE = ("_forward_module", "_original_module")
# Where PEFT keeps a layer that it has put an adapter around: a folder of that layer, in a model.
ADAPTED = "base_layer"

_FRONTS = (f"{DATA_PARALLEL}.", "_orig_mod.")  # before all the names of a state_dict
_IN_EACH = "_mod"  # of `CHILDREN`, which is looked for first
assert all(_IN_EACH in child for child in CHILDREN)
_CHILD = re.compile(rf"(?<![^/.])(?:{'|'.join(sorted(CHILDREN))})[/.]")

# What may stand before all names: one, or two of different wrappers.
FRONTS = ("", *_FRONTS, *(a + b for b in _FRONTS for a in _FRONTS if a != b))


def without_children(name: str) -> str:
    """A name with dots or slashes, without the wrappers whose children have names of their own."""
    return _CHILD.sub("", name) if _IN_EACH in name else name  # most have none, and they are many


def without_fronts(name: str) -> Iterator[str]:
    """A name, and the same without what stands before all names; the shortest last."""
    yield name
    while name.startswith(_FRONTS):
        name = name.partition(".")[2]
        yield name


def without_wrappers(name: str) -> str:
    """A parameter's name with dots, without all that wrappers put into it."""
    *_, shortest = without_fronts(without_children(name))
    return shortest
