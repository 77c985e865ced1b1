r"""One pattern for many tables in a settings file: texts with groups, filled in for each table.

    [var_name_to_vocab_info.patterns.'tables\.(\w+)\.weight']
    new_vocab = 'today/\1.txt'
    old_vocab = 'yesterday/\1.txt'

`\1` and `\g<name>` stand for what the pattern's group has matched, in every text below it, and
nothing else is special.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any

from torch_warmstart.errors import SettingsError
from torch_warmstart.values import frozen

_GROUP = re.compile(r"\\(?:([1-9][0-9]?)|g<(\w+)>)")


@frozen(slots=False)
class InfoTemplate:
    """A function from a pattern's match to the infos that a file says; two of one text are equal.

    Args:
        said: What the file says, with groups.
        make: Makes infos of what is said, once the groups are filled in.
    """

    said: Any
    make: Callable[[Any], Any] = field(compare=False, repr=False)

    def __call__(self, match: re.Match[str]) -> Any:
        return self.make(_filled(self.said, match))


def groups_in(said: Any) -> set[str]:
    """The groups that texts name, as they are written."""
    return {number or name for text in _texts(said) for number, name in _GROUP.findall(text)}


def check_groups(said: Any, pattern: re.Pattern[str], where: str) -> None:
    """Raises SettingsError for a group that a pattern does not have."""
    known = {*map(str, range(1, pattern.groups + 1)), *pattern.groupindex}
    for group in sorted(groups_in(said) - known):
        text = f"\\{group}" if group.isdecimal() else f"\\g<{group}>"
        raise SettingsError(f"{where}: {text} is no group of the pattern {pattern.pattern!r}.")


def _texts(said: Any) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    elif isinstance(said, Mapping):
        for one in said.values():
            yield from _texts(one)
    elif isinstance(said, list):
        for one in said:
            yield from _texts(one)


def _filled(said: Any, match: re.Match[str]) -> Any:
    if isinstance(said, str):
        return _GROUP.sub(lambda group: match[_key(group)] or "", said)
    if isinstance(said, Mapping):
        return {key: _filled(one, match) for key, one in said.items()}
    return [_filled(one, match) for one in said] if isinstance(said, list) else said


def _key(group: re.Match[str]) -> int | str:
    name = group[1] or group[2]
    return int(name) if name.isdecimal() else name
