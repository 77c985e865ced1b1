"""What modules have, so that it can be put back after somebody else's code has run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch


class Attributes:
    """The attributes of modules, their tensors, children and hooks, as they were.

    An object that is an attribute may change in itself; that is not seen.
    """

    def __init__(self) -> None:
        self._kept: list[tuple[Any, Any]] = []  # dicts and sets; what was in them

    def keep(self, modules: Iterable[torch.nn.Module]) -> None:
        """Remembers what modules have, and who listens to them."""
        for module in modules:
            own = vars(module)
            for where in (own, *(v for k, v in own.items() if k[:1] == "_")):
                if isinstance(where, dict | set):
                    self._kept.append((where, where.copy()))

    def put_back(self) -> None:
        """Makes all as it was; a second time makes no difference."""
        for where, before in self._kept:
            if not _is_same_collection(where, before):
                where.clear()
                where.update(before)


def is_same_register(where: Mapping[str, Any], entries: Mapping[str, Any]) -> bool:
    """Whether the very same objects are there, in the same order."""
    if list(where) != list(entries):
        return False
    return all(where[name] is entry for name, entry in entries.items())


def _is_same_collection(now: Any, before: Any) -> bool:
    """Whether a dict or set holds the very same objects."""
    if isinstance(now, dict):
        return is_same_register(now, before)
    return {id(one) for one in now} == {id(one) for one in before}
