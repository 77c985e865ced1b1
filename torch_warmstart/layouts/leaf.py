"""What a tensor is called within its layer: how such names are written, and what they say.

kernel               the tensor itself
query/kernel         in a layer within
lstm_cell*/kernel    `*` stands for any run of characters without a slash
cell#1:3/kernel      the number of the second of three that differ in nothing else: of `cell_5`,
`cell_6` and `cell_7` the one in the middle; `cell` has the number 0
pointwise/../bias    what the layer around it calls `bias`, if that calls this one `pointwise`
"""

from __future__ import annotations

import functools
import re

from torch_warmstart.values import frozen

ANY = "*"
_IN_PARENT = "/../"
_NUMBERED = re.compile(r"#(\d+):(\d+)")
_WILD = re.compile(rf"{re.escape(ANY)}|{_NUMBERED.pattern}")


def in_parent(child: str, name: str) -> str:
    """The name of a tensor that is kept by the layer around, which calls this one `child`."""
    return f"{child}{_IN_PARENT}{name}"


def numbered(name: str, number: int, count: int) -> str:
    """A name for one of several that differ only in the numbers behind it, which rise."""
    return f"{name}#{number}:{count}"


@frozen
class LeafName:
    """A name within a layer, as it is read: `read_leaf` makes it.

    Args:
        child: What the layer around calls this one, if the tensor is kept there; else None.
        name: What the tensor is called in the layer that keeps it.
        literal: The part of `name` before anything that stands for something else.
        expression: What `name` takes; its group 1 is the number, where there is one.
        number: Which of them it is, by rising numbers, if several differ only in that; else None.
        count: How many there must be of them.
    """

    child: str | None
    name: str
    literal: str
    expression: re.Pattern[str]
    number: int | None = None
    count: int = 0

    @property
    def is_pattern(self) -> bool:
        """Whether more than one key may answer to it."""
        return self.literal != self.name

    def layer_in(self, path: str) -> str | None:
        """The path of the layer that keeps the tensor, for a layer at a path; None if none does."""
        if self.child is None:
            return path
        around, _, called = path.replace("/", ".").rpartition(".")
        return around if called == self.child else None

    def layer_of(self, key: str) -> str | None:
        """The path of the layer that a key is such a tensor of: `layer_in` backwards."""
        if not f"/{key}".endswith(f"/{self.name}"):
            return None
        around = f"/{key}".removesuffix(f"/{self.name}").strip("/")
        return around if self.child is None else f"{around}/{self.child}".strip("/")


@functools.lru_cache(maxsize=8192)
def read_leaf(written: str) -> LeafName:
    """What a name within a layer says."""
    child, is_in_parent, rest = written.partition(_IN_PARENT)
    name = rest if is_in_parent else written
    wild = _WILD.search(name)
    literal = name[: wild.start()] if wild else name
    number = _NUMBERED.search(name)
    k, count = (int(number[1]), int(number[2])) if number else (None, 0)
    return LeafName(child if is_in_parent else None, name, literal, expression(name), k, count)


@functools.lru_cache(maxsize=8192)
def expression(pattern: str) -> re.Pattern[str]:
    """A part of a name as a regular expression."""
    pieces = (re.escape(piece).replace(re.escape(ANY), "[^/]*") for piece in _pieces(pattern))
    return re.compile(r"(?:_(\d{1,18}))?".join(pieces))


def _pieces(pattern: str) -> list[str]:
    """What stands before a number, and behind it."""
    found = _NUMBERED.search(pattern)
    return [pattern[: found.start()], pattern[found.end() :]] if found else [pattern]
