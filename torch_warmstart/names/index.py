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
from torch_warmstart.layouts.tensorflow import is_slot
from torch_warmstart.names.conventions import bare_name

ANY = "*"
_NUMBERED = re.compile(r"#(\d+):(\d+)")
_FEW = 2_000  # names that difflib goes through in a few hundredths of a second


class NameIndex:
    """The keys and the other names of a checkpoint."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = list(dict.fromkeys(names))

    def matching(self, path: str, pattern: str) -> Iterator[str]:
        """The names below a path that a pattern takes.

        `*` is any run of characters without a slash. `#1:3` is the number of the second of three
        that differ only in it: in `cell#1:3`, `cell_6` of `cell_5`, `cell_6` and `cell_7`.
        """
        return _matching(self._sorted, f"{path}/" if path else "", pattern)

    def in_a_scope(self, path: str, pattern: str) -> Iterator[str]:
        """The names with exactly one scope before a path and a pattern: `sequential/den/kernel`."""
        if ANY in pattern or _NUMBERED.search(pattern):
            return _matching(self._without_scope, f"{path}/", pattern)
        return iter(self._by_name_without_scope.get(f"{path}/{pattern}", ()))

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


def _matching(entries: list[tuple[str, str]], begin: str, pattern: str) -> Iterator[str]:
    """The names of entries (what is compared, name), sorted, that begin so and match a pattern."""
    numbered = _NUMBERED.search(pattern)
    if numbered:
        return _numbered(entries, begin, pattern, numbered)
    return (name for _, name in _entries_like(entries, begin, pattern))


def _entries_like(
    entries: list[tuple[str, str]], begin: str, pattern: str
) -> Iterator[tuple[str, str]]:
    fixed, is_pattern, _ = pattern.partition(ANY)
    literal, expression = begin + fixed, _expression(pattern)
    for at in range(bisect.bisect_left(entries, (literal, "")), len(entries)):
        compared = entries[at][0]
        if not compared.startswith(literal) or not (is_pattern or compared == literal):
            return
        if expression.fullmatch(compared, len(begin)):
            yield entries[at]


def _numbered(
    entries: list[tuple[str, str]], begin: str, pattern: str, numbered: re.Match[str]
) -> Iterator[str]:
    """Those of a pattern with `#k:n`, if there are n: the k-th by the number they end in there.

    Keras gives what it makes in a row numbers that rise, from wherever it had come to.
    """
    before, after = pattern[: numbered.start()], pattern[numbered.end() :]
    parts = (re.escape(part).replace(re.escape(ANY), "[^/]*") for part in (before, after))
    expression = re.compile(r"(?:_(\d+))?".join(parts))
    found: dict[int, list[str]] = {}
    for compared, name in _entries_like(entries, begin, f"{before}{ANY}{after}"):
        match = expression.fullmatch(compared, len(begin))
        if match is not None:
            found.setdefault(int(match[1] or 0), []).append(name)
    k, count = int(numbered[1]), int(numbered[2])
    if len(found) == count:
        yield from found[sorted(found)[k]]


@functools.lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    """A pattern with `*` as a regular expression."""
    return re.compile(re.escape(pattern).replace(re.escape(ANY), "[^/]*"))


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/.]", name) if part]
