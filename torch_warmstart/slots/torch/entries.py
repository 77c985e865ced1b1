"""Which entry of a file an optimizer's state belongs to, where several hold tensors that are alike.

`{"actor": ..., "critic": ..., "critic_optimizer": ...}`: by its names, or its positions, the state
would fit either. Where they lie and what they are called tells, or nothing does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch_warmstart.formats import USUAL, is_of_averages

_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+")
# What entries are called whatever they are for; and copies, besides averages, that no optimizer
# changes. (Suggestions have words of their own: to them `old` says where a name lies.)
_ANYTHING = {"optimizer", "optimizers", "optim", "opt", "state", "states", "dict", "model", "net"}
_COPIES = {"target", "teacher", "best", "old", "ref", "reference", "frozen"}


def doubt_of_entries(state: str, entry: str, others: Sequence[str]) -> str:
    """What to say if an optimizer's state may be another entry's than the one that was taken.

    Args:
        state: The path of keys to the state.
        entry: That to the tensors that were taken.
        others: Those to tensors of the same names and shapes.
    """
    rivals = [other for other in others if not _is_copy(other) or _is_copy(entry)]
    near = max((_nearness(state, other) for other in rivals), default=None)
    if near is None or _nearness(state, entry) > near:
        return ""
    if near == _nearness(state, entry) and _is_usual(entry) and not any(map(_is_usual, rivals)):
        return ""
    rival = next(other for other in rivals if _nearness(state, other) == near)
    return (
        f"The optimizer's state at {state!r} may be that of {rival!r} as well as of {entry!r}, "
        "which have tensors of the same names and shapes. It is taken for that of the latter; if "
        "it is the other's, leave `optimizer` out. "
        f"optimizer_entry={state!r} says that it is right."
    )


def nearest(states: Sequence[str], entry: str) -> Sequence[str]:
    """The optimizers' states that most keys lead to in common with an entry.

    Of `{"g": {"model": ..., "optimizer": ...}, "d": ...}` the one in "g" is that of "g/model".
    """
    most = max(_shared(state, entry) for state in states)
    return [state for state in states if _shared(state, entry) == most]


def _shared(state: str, entry: str) -> int:
    """How many keys lead to both."""
    pairs = list(zip(state.split("/"), entry.split("/"), strict=False))
    return next((n for n, (one, other) in enumerate(pairs) if one != other), len(pairs))


def _nearness(state: str, entry: str) -> tuple[int, bool]:
    """How many keys lead to both, and whether they are called alike: `opt_g` and `generator`."""
    called = ((one, other) for one in _words(state) for other in _words(entry))
    return _shared(state, entry), any(o.startswith(w) or w.startswith(o) for o, w in called)


def _words(path: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(path)} - _ANYTHING


def _is_copy(path: str) -> bool:
    """Whether words say that what is there is a copy of a model, which no optimizer changes."""
    return any(word in _COPIES or is_of_averages(word) for word in _words(path))


def _is_usual(entry: str) -> bool:
    return entry.rpartition("/")[2] in USUAL
