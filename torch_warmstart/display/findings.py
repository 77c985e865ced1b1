"""Findings as lines. What is found of many variables alike is told once, with the others' names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from torch_warmstart.display.folding import fold, fold_endings
from torch_warmstart.errors import Finding, listed, plural, the_same

_NUMBER = re.compile(r"\d[\d,]*")
_FEW = 2  # findings that are alike and have a line each


def told(findings: Iterable[Finding]) -> list[str]:
    """A line for each finding, or for all that differ in their subject and numbers only."""
    return [f"{one.severity.capitalize()}: {one}{more}" for one, more in grouped(findings)]


def grouped(findings: Iterable[Finding]) -> Iterator[tuple[Finding, str]]:
    """Each finding, or the first of those that are alike, and what to add of the others."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for at, finding in enumerate(findings):
        masked = _NUMBER.sub("#", _of_anybody(finding))
        key = (finding.severity, finding.code, masked, "" if finding.subject else str(at))
        groups.setdefault(key, []).append(finding)
    for group in groups.values():
        if len(group) <= _FEW:
            yield from ((one, "") for one in group)
        else:
            yield group[0], f" {_more(group)}"


def _of_anybody(finding: Finding) -> str:
    """A finding's text, without its subject's name."""
    name = re.escape(finding.subject)
    return re.sub(rf"(?<![\w./]){name}(?![\w/]|\.\w)", "\0", finding.text)


def _more(group: Sequence[Finding]) -> str:
    """Of whom else it is true what is said of the first of a group."""
    others = group[1:]
    names = fold_endings(fold(((other.subject,) for other in others), 1), 1)
    are_equal = len(set(map(_of_anybody, group))) == 1
    same = the_same(exactly=are_equal)
    return f"{same} of {plural(len(others), 'other')}: {listed(name for (name,) in names)}."
