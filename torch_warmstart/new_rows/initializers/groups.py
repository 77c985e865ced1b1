"""New rows from old ones that share an attribute: a category's items, an author's books."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from torch_warmstart.dtypes import lies_in_memory
from torch_warmstart.entries import Vocabulary
from torch_warmstart.errors import SettingsError
from torch_warmstart.new_rows.composing import RowInitializer
from torch_warmstart.new_rows.mixture import Mixture, normalised, nothing
from torch_warmstart.new_rows.rows import NewRows


@dataclass(frozen=True, eq=False, repr=False)
class GroupMean(RowInitializer):
    """The mean of the old rows of a row's group."""

    groups: Mapping[Any, Any]
    name: ClassVar[str] = "group_mean"

    @functools.cached_property
    def _group_of_key(self) -> torch.Tensor:
        """The number of each key's group; -1 where it has none."""
        numbers: dict[Any, int] = {}
        try:
            groups = [
                -1 if _is_missing(group) else numbers.setdefault(group, len(numbers))
                for group in map(_as_value, self.groups.values())
            ]
        except TypeError as error:
            raise SettingsError(
                f"init.group_mean: a group is one value that can be a key of a dict: {error}."
            ) from error
        return torch.tensor(groups, dtype=torch.int64)

    def __call__(self, new: NewRows) -> Mixture:
        entries = new.entries()
        if not len(entries) or new.old.vocabulary is None:
            return nothing(len(new))
        outside = new.old.outside
        listed = outside.entries(list(self.groups))
        keys = Vocabulary(listed, len(listed))
        num_groups = 1 + max(0, int(self._group_of_key.max()))
        group_of_old = self._group_of(new.old.find_in(keys))
        bags = torch.full((len(new),), -1, dtype=torch.int64)
        bags[new.has_entry] = self._group_of(outside.find(entries, keys))
        members = (group_of_old >= 0).nonzero().flatten()
        order = torch.argsort(group_of_old[members], stable=True)
        members = members[order]
        counts = torch.bincount(group_of_old[members], minlength=num_groups)
        offsets = torch.zeros(num_groups + 1, dtype=torch.int64)
        torch.cumsum(counts, 0, out=offsets[1:])
        group_of = group_of_old[members]
        weights = normalised(group_of, torch.ones(len(members), dtype=torch.float32), num_groups)
        answered = (bags >= 0) & (counts[bags.clamp(min=0)] > 0)
        return Mixture(offsets, members, weights, answered, bags.clamp(min=0))

    def _group_of(self, places: torch.Tensor) -> torch.Tensor:
        """The groups of entries by their places among the keys; -1 where there is none."""
        return torch.where(places >= 0, self._group_of_key[places.clamp(min=0)], -1)


def _as_value(group: Any) -> Any:
    """A number of a tensor as Python's: tensors are keys as objects, each another one."""
    if not isinstance(group, torch.Tensor):
        return group
    if group.ndim or not lies_in_memory(group):
        raise TypeError(f"a tensor of shape {list(group.shape)} is none")
    return group.item()


def _is_missing(group: Any) -> bool:
    """Whether it is what tables have where nothing is known: None, NaN, pandas' NA and NaT."""
    try:
        return group is None or bool(group != group)  # noqa: PLR0124  of all only NaN is not itself
    except (TypeError, ValueError):
        return type(group).__name__ == "NAType"
