"""All names of a checkpoint, sorted once, for whoever knows only a part of one.

A name is looked up in the checkpoint itself. Here are the other questions: which names does a
pattern take, which name has one more scope in front, and which look alike. None of them is answered
by going through all names, of which a checkpoint may have 100,000.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterable, Iterator, Sequence

from torch_warmstart.errors import COMPARED, NEAR, near_names
from torch_warmstart.layouts import LeafName, read_leaf
from torch_warmstart.names.conventions import plain_name

_COMPARISONS = 15_000  # of two names by difflib, for all questions together: a fraction of a second
MAX_DIGITS = 18  # of a number in a name


class NameIndex:
    """The keys and the other names of a checkpoint."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names: list[str] = list(dict.fromkeys(names))
        self._comparisons = _COMPARISONS

    def called(self, plain: str) -> Sequence[str]:
        """The names that are this one but for their spelling."""
        return self._by_plain_name.get(plain, ())

    def has_ending(self, plain: str) -> bool:
        """Whether a name may end so: whether one has its last part."""
        last = plain.rpartition("/")[2]
        return not last or last in self._last_parts

    def matching(self, path: str, name: str) -> Iterator[str]:
        """The names below a path that a name within a layer takes."""
        return _matching(self._sorted, f"{path}/" if path else "", read_leaf(name))

    def in_a_scope(self, path: str, name: str) -> Iterator[str]:
        """The same with exactly one scope before the path: `sequential/den/kernel`."""
        leaf = read_leaf(name)
        if leaf.is_pattern:
            return _matching(self._without_scope, f"{path}/", leaf)
        return iter(self._by_name_without_scope.get(f"{path}/{name}", ()))

    def ending_in(self, ending: str) -> Sequence[str]:
        """The names that end in these parts; slots of optimizers are left out."""
        last = "/".join(ending.split("/")[-2:])
        found = self._by_ending.get(last, ())
        return [name for name in found if f"/{plain_name(name)}".endswith(f"/{ending}")]

    def near(self, name: str) -> list[str]:
        """Names that look like this one, best first.

        Where thousands of names are not there nobody reads what is near each of them: from some
        number of comparisons on, only names that share a rare part are looked at.
        """
        pool = self._pool(name)
        if len(pool) > self._comparisons:
            return self._sharing_a_part(name)
        self._comparisons -= len(pool)
        return near_names(name, pool)

    def _pool(self, name: str) -> Sequence[str]:
        """What is compared with a name in full."""
        if len(self._likely) <= COMPARED:
            return self._likely
        pool: dict[str, None] = {}
        for known in sorted((self._by_part.get(part, []) for part in _parts(name)), key=len):
            if len(pool) + len(known) > COMPARED and pool:
                break
            pool.update(dict.fromkeys(known[:COMPARED]))  # rare parts say more than `kernel`
        return list(pool)

    def _sharing_a_part(self, name: str) -> list[str]:
        """The first names that have the rarest part which any name has."""
        found = [known for part in _parts(name) if (known := self._by_part.get(part))]
        return min(found, key=len)[:NEAR] if found else []

    @functools.cached_property
    def _sorted(self) -> list[tuple[str, str]]:
        return sorted((plain_name(name), name) for name in self.names)

    @functools.cached_property
    def _by_plain_name(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self.names:
            found.setdefault(plain_name(name), []).append(name)
        return found

    @functools.cached_property
    def _last_parts(self) -> frozenset[str]:
        return frozenset(plain.rpartition("/")[2] for plain in self._by_plain_name)

    @functools.cached_property
    def _without_scope(self) -> list[tuple[str, str]]:
        cut = ((plain_name(name).partition("/")[2], name) for name in self.names)
        return sorted(entry for entry in cut if entry[0])

    @functools.cached_property
    def _by_name_without_scope(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for bare, name in self._without_scope:
            found.setdefault(bare, []).append(name)
        return found

    @functools.cached_property
    def _by_ending(self) -> dict[str, list[str]]:
        """By the last two parts of a name, or by all where it has but one."""
        found: dict[str, list[str]] = {}
        for name in self._likely:
            found.setdefault("/".join(plain_name(name).split("/")[-2:]), []).append(name)
        return found

    @functools.cached_property
    def _likely(self) -> list[str]:
        """Names that may be meant where a variable's is misspelt."""
        from torch_warmstart.layouts.tensorflow import is_slot

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
        number = match[1] or "0"
        if len(number) <= MAX_DIGITS:  # nothing is counted further
            found.setdefault(int(number), []).append(name)
    if leaf.number is not None and len(found) == leaf.count:
        yield from found[sorted(found)[leaf.number]]


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/.]", name) if part]
