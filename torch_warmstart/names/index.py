"""All names of a checkpoint, sorted once, for whoever knows only a part of one.

A name is looked up in the checkpoint itself. Here are the other questions: which names does a
pattern take, which name has one more scope in front, and which look alike. None of them is answered
by going through all names, of which a checkpoint may have 100,000.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterable, Iterator

from torch_warmstart.errors import near_names
from torch_warmstart.layouts import LeafName, read_leaf
from torch_warmstart.layouts.tensorflow import is_slot
from torch_warmstart.names.conventions import bare_name

_FEW = 2_000  # names that difflib goes through in a few hundredths of a second


class NameIndex:
    """The keys and the other names of a checkpoint."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(dict.fromkeys(names))

    def matching(self, path: str, name: str) -> Iterator[str]:
        """The names below a path that a name within a layer takes."""
        return _matching(self._sorted, f"{path}/" if path else "", read_leaf(name))

    def in_a_scope(self, path: str, name: str) -> Iterator[str]:
        """The same with exactly one scope before the path: `sequential/den/kernel`."""
        leaf = read_leaf(name)
        if leaf.is_pattern:
            return _matching(self._without_scope, f"{path}/", leaf)
        return iter(self._by_name_without_scope.get(f"{path}/{name}", ()))

    def near(self, name: str) -> list[str]:
        """Names that look like this one, best first."""
        if len(self._likely) <= _FEW:
            return near_names(name, self._likely)
        pool: dict[str, None] = {}
        for known in sorted((self._by_part.get(part, []) for part in _parts(name)), key=len):
            if len(pool) + len(known) > _FEW and pool:
                break
            pool.update(dict.fromkeys(known[:_FEW]))  # rare parts say more than `kernel`
        return near_names(name, pool)

    @functools.cached_property
    def _sorted(self) -> list[tuple[str, str]]:
        return sorted((bare_name(name), name) for name in self.names)

    @functools.cached_property
    def _without_scope(self) -> list[tuple[str, str]]:
        cut = ((bare_name(name).partition("/")[2], name) for name in self.names)
        return sorted(entry for entry in cut if entry[0])

    @functools.cached_property
    def _by_name_without_scope(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for bare, name in self._without_scope:
            found.setdefault(bare, []).append(name)
        return found

    @functools.cached_property
    def _likely(self) -> list[str]:
        """Names that may be meant where a variable's is misspelt."""
        return [name for name in self.names if not is_slot(name)] or self.names

    @functools.cached_property
    def _by_part(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._likely:
            for part in dict.fromkeys(_parts(name)):
                found.setdefault(part, []).append(name)
        return found


def _matching(entries: list[tuple[str, str]], begin: str, leaf: LeafName) -> Iterator[str]:
    """The names of entries (what is compared, name), sorted, that begin so and are a leaf's."""
    found = _entries_like(entries, begin, leaf)
    if leaf.number is None:
        return (name for _, name in found)
    return _numbered(found, begin, leaf)


def _entries_like(
    entries: list[tuple[str, str]], begin: str, leaf: LeafName
) -> Iterator[tuple[str, str]]:
    literal = begin + leaf.literal
    for at in range(bisect.bisect_left(entries, (literal, "")), len(entries)):
        compared = entries[at][0]
        if not compared.startswith(literal) or not (leaf.is_pattern or compared == literal):
            return
        if leaf.expression.fullmatch(compared, len(begin)):
            yield entries[at]


def _numbered(entries: Iterable[tuple[str, str]], begin: str, leaf: LeafName) -> Iterator[str]:
    """Of as many entries as a leaf counts, those of its number.

    Keras gives what it makes in a row numbers that rise, from wherever it had come to.
    """
    found: dict[int, list[str]] = {}
    for compared, name in entries:
        match = leaf.expression.fullmatch(compared, len(begin))
        assert match is not None  # it is an entry of the leaf's
        found.setdefault(int(match[1] or 0), []).append(name)
    if leaf.number is not None and len(found) == leaf.count:
        yield from found[sorted(found)[leaf.number]]


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/.]", name) if part]
