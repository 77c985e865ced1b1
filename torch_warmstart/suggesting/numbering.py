"""What the numbers in names of layers say: places in lists, counts of Keras's, ranks."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch_warmstart.suggesting.similarity import tokens_of


def numbers_in(name: str) -> tuple[int, ...]:
    """All numbers in a name, parts of words among them."""
    return tuple(int(token) for token in tokens_of(name) if token.isdecimal())


def places_in(name: str) -> list[str]:
    """The numbers in a name that stand by themselves: places in lists."""
    return [part for part in name.replace("/", ".").split(".") if part.isdecimal()]


def without_numbers(names: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The words of each name."""
    return [tuple(token for token in tokens if not token.isdecimal()) for tokens in names]


def with_first_numbers(names: Sequence[str]) -> list[str]:
    """Names with the number that Keras leaves out for the first: `dense` beside `dense_1`.

    At every level: `attention/out` beside `attention_1/out` is `attention_0/out`.
    """
    paths = [re.split(r"([/.])", name) for name in names]
    begins = _begins(paths)
    numbered = {
        (begin, part.rpartition("_")[0])
        for path, before in zip(paths, begins, strict=True)
        for begin, part in zip(before, path, strict=True)
        if re.search(r"_\d+$", part)
    }
    return [
        "".join(
            f"{part}_0" if (begin, part) in numbered else part
            for begin, part in zip(before, path, strict=True)
        )
        for path, before in zip(paths, begins, strict=True)
    ]


def _begins(names: Sequence[Sequence[str]]) -> list[list[int]]:
    """For each part of each name a number for all that is in front of it; a name may be long."""
    known: dict[tuple[int, str], int] = {}
    found = []
    for parts in names:
        begin, begins = 0, []
        for part in parts:
            begins.append(begin)
            begin = known.setdefault((begin, part), len(known) + 1)
        found.append(begins)
    return found


def are_counted_through(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]]) -> bool:
    """Whether candidates differ only in one number, and layers are not numbered like that.

    Keras counts its layers through: `norm_3` is the second norm of the second block.
    """
    if len(set(map(tuple, without_numbers(theirs)))) > 1 or len(theirs) == 1:
        return False
    return {_count_numbers(n) for n in theirs} == {1} and {_count_numbers(n) for n in ours} != {1}


def _count_numbers(tokens: Sequence[str]) -> int:
    return sum(token.isdecimal() for token in tokens)


def ranked(names: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Names with each number as its rank among those at that position in names that begin alike."""
    begins = _begins(names)
    seen: dict[int, set[int]] = {}
    for tokens, before in zip(names, begins, strict=True):
        for begin, token in zip(before, tokens, strict=True):
            if token.isdecimal():
                seen.setdefault(begin, set()).add(int(token))
    ranks = {begin: {n: k for k, n in enumerate(sorted(found))} for begin, found in seen.items()}
    return [
        tuple(
            str(ranks[begin][int(token)]) if token.isdecimal() else token
            for begin, token in zip(before, tokens, strict=True)
        )
        for tokens, before in zip(names, begins, strict=True)
    ]
