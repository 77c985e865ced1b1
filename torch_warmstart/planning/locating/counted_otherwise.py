"""Lists of layers whose numbers begin elsewhere in the checkpoint: one number is two layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from torch_warmstart.errors import Finding
from torch_warmstart.model import Variable
from torch_warmstart.names import Finder, plain_name
from torch_warmstart.planning.locating.locations import Located
from torch_warmstart.planning.locating.missing_rules import is_missing
from torch_warmstart.planning.wishes import Wish, Wishes
from torch_warmstart.settings import SETTING

_MEMBER = re.compile(r"(?<![^/])\d{1,9}(?![^/])")  # a part of a name that is a number
_ALIKE_HINT = (
    "If one number is one layer on both sides: on_missing='keep' keeps what the model has besides."
)


def find_counted_otherwise(wishes: Wishes, located: Located) -> dict[Finding, frozenset[Variable]]:
    """A problem for each list of as many members whose numbers begin elsewhere; and for whom.

    Its ends are not found, and whoever leaves them out, or keeps them, would take the others by
    their numbers. With on_missing='keep', or where nobody asks for the ends, it is a warning.
    """
    found: dict[Finding, frozenset[Variable]] = {}
    for path, (members, here, there) in _shifted_lists(wishes, located).items():
        missing = [wish for wish in members if is_missing(wish.variable, located)]
        asked = [wish for wish in missing if wish.is_selected and wish.rename is None]
        if asked or (missing and any(_is_by_number(wish, located) for wish in members)):
            name = (asked or missing)[0].variable.name
            finding = Finding(
                "numbers-shifted",
                "warning" if all(wish.may_be_missing for wish in asked) else "error",
                name,
                _told(name, path, here, there, located.finder),
                _ALIKE_HINT,
            )
            found[finding] = frozenset(wish.variable for wish in asked)
    return found


_Lists = dict[str, tuple[list[Wish], list[int], list[int]]]


def _shifted_lists(wishes: Wishes, located: Located) -> _Lists:
    """By what stands before the number: the variables, the model's numbers, the checkpoint's."""
    lists: _Lists = {}
    if not (located.unused and any(is_missing(v, located) for v in located.of_variable)):
        return lists
    ours = _members(name for variable in located.of_variable for name in variable.names)
    theirs = _members(located.finder.keys)
    for variable in located.of_variable:
        for stem, _ in _stems(variable.name):
            here, there = ours[stem], theirs.get(stem, set())
            is_shifted = len(here) == len(there) > 1 and min(here) != min(there)
            if is_shifted and _are_a_run(here) and _are_a_run(there):
                members, *_ = lists.setdefault(stem[0], ([], sorted(here), sorted(there)))
                members.append(wishes[variable])
    return lists


def _is_by_number(wish: Wish, located: Located) -> bool:
    return wish.is_selected and wish.rename is None and located.is_there(wish.variable)


def _told(name: str, path: str, here: Sequence[int], there: Sequence[int], finder: Finder) -> str:
    mine, its = path.replace("/", "."), finder.conventions.spelt(path.replace("/", "."))
    rule = f"{{'{mine}{here[0]}.': '{its}{there[0]}{finder.conventions.separator}', ...}}"
    return (
        f"{name} is not in the checkpoint, which has {its}{there[0]} to {there[-1]} where the "
        f"model has {mine}{here[0]} to {here[-1]}. If it counts from another number, what is taken "
        f"by number is another layer's: say so, {SETTING}={rule}."
    )


def _members(names: Iterable[str]) -> dict[tuple[str, str], set[int]]:
    """The numbers that names have in a place, by what stands before and behind it."""
    found: dict[tuple[str, str], set[int]] = {}
    for name in names:
        for stem, number in _stems(name):
            found.setdefault(stem, set()).add(number)
    return found


def _stems(name: str) -> Iterator[tuple[tuple[str, str], int]]:
    plain = plain_name(name)
    for match in _MEMBER.finditer(plain):
        yield (plain[: match.start()], plain[match.end() :]), int(match[0])


def _are_a_run(numbers: set[int]) -> bool:
    return max(numbers) - min(numbers) == len(numbers) - 1
