"""What every bomb is: a builder under its name, and the case that it builds."""

from __future__ import annotations

from collections.abc import Callable

from fuzz.cases import Case

BIG = (1 << 63) - 1
KIB = 1024

BOMBS: dict[str, Callable[[], Case]] = {}


def bomb(builder: Callable[[], Case]) -> Callable[[], Case]:
    BOMBS[builder.__name__] = builder
    return builder


def case_of(format: str, target: str, files: dict[str, bytes], *, refuse: bool = False) -> Case:
    """A case; with `refuse`, any tensor that can be read is one too many."""
    return Case(format, "bomb", target, files, same=None if refuse else frozenset())
