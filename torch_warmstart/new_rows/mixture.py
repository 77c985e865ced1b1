"""New rows as sparse mixtures of old ones: a value without any of the rows themselves."""

from __future__ import annotations

from dataclasses import replace

import torch

from torch_warmstart.errors import SettingsError
from torch_warmstart.values import frozen

_HASH = (0x9E3779B97F4A7C15 - (1 << 64), 0x2545F4914F6CDD1D)  # odd; for telling mixtures apart
_EQUAL = 1e-6  # weights are told apart in steps of this


@frozen(eq=False)
class Mixture:
    """New rows as weighted sums of old ones: `new[i] = sum_j weights[j] * old[indices[j]]`.

    What an initialiser returns that knows its rows by old ones. Rows it has no answer for are left
    to the next initialiser.

    Args:
        offsets: int64 of `[bags + 1]`: where the terms of each bag begin, and the end of the last.
        indices: int64, the old row of each term.
        weights: The weight of each term: float64, or float32 where tables are no wider.
        answered: bool of `[m]`, one for each new row that was asked for.
        bags: int64 of `[m]`, which bag a new row is; None: each its own. Rows may share a bag.

    Example:
        >>> Mixture(                                 # new[0] = old[3], new[1] = (old[0] + old[2])/2
        ...     torch.tensor([0, 1, 3]),
        ...     torch.tensor([3, 0, 2]),
        ...     torch.tensor([1.0, 0.5, 0.5]),
        ...     torch.tensor([True, True]),
        ... ).terms(1)
        [(0, 0.5), (2, 0.5)]
    """

    offsets: torch.Tensor
    indices: torch.Tensor
    weights: torch.Tensor
    answered: torch.Tensor
    bags: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.answered)

    def bag_of(self, rows: slice) -> torch.Tensor:
        """The bags of some of the new rows."""
        if self.bags is not None:
            return self.bags[rows]
        return torch.arange(len(self))[rows]

    def terms(self, row: int) -> list[tuple[int, float]]:
        """A new row's old rows and their weights, heaviest first."""
        bag = row if self.bags is None else int(self.bags[row])
        part = slice(int(self.offsets[bag]), int(self.offsets[bag + 1]))
        sums: dict[int, float] = {}  # a piece may be in a text several times
        for index, weight in zip(
            self.indices[part].tolist(), self.weights[part].tolist(), strict=True
        ):
            sums[index] = sums.get(index, 0.0) + weight
        return sorted(sums.items(), key=lambda pair: -abs(pair[1]))

    def only(self, rows: torch.Tensor) -> Mixture:
        """Some of the new rows, by a mask."""
        at = rows.nonzero().flatten()
        bags = at if self.bags is None else self.bags[at]
        return replace(self, answered=self.answered[at], bags=bags)


def mixture_of(
    rows: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor, count: int
) -> Mixture:
    """A mixture of terms in the order of their new rows; who has none is not answered.

    Args:
        rows: int64, the new row of each term, ascending.
        indices: int64, the old row of each term.
        weights: The weight of each term.
        count: How many new rows there are.
    """
    counts = torch.bincount(rows, minlength=count)
    return Mixture(_offsets(counts), indices, weights, counts > 0)


def means_of(counts: torch.Tensor, indices: torch.Tensor) -> Mixture:
    """New rows that are the mean of old ones: so many for each, one after the other."""
    weights = 1 / counts.clamp(min=1).double()
    return Mixture(_offsets(counts), indices, weights.repeat_interleave(counts), counts > 0)


def one_hot(indices: torch.Tensor) -> Mixture:
    """New rows that are one old row each; -1: not answered."""
    answered = indices >= 0
    kept = indices[answered]
    ones = torch.ones(len(kept), dtype=torch.float32)
    return Mixture(_offsets(answered.long()), kept, ones, answered)


def nothing(count: int) -> Mixture:
    """No answer for any of so many rows."""
    return one_hot(torch.full((count,), -1, dtype=torch.int64))


def normalised(rows: torch.Tensor, weights: torch.Tensor, count: int) -> torch.Tensor:
    """Weights of terms, made to sum to 1 for each new row: float64, as tables may be."""
    totals = torch.zeros(count, dtype=torch.float64).index_add_(0, rows, weights.double())
    return weights.double() / totals[rows]


def check_mixture(mixture: Mixture, count: int, old_size: int, name: str) -> Mixture:
    """Raises SettingsError unless a user's mixture is one of `count` rows of an old table."""
    fields = {
        part: getattr(mixture, part) for part in ("offsets", "indices", "weights", "answered")
    }
    if mixture.bags is not None:
        fields["bags"] = mixture.bags
    for part, value in fields.items():
        if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
            raise SettingsError(f"{name} returned a Mixture whose {part} is no tensor on the CPU.")
    bags = count if mixture.bags is None else len(mixture.offsets) - 1
    bag_of = mixture.bag_of(slice(None))
    facts = {
        f"answered is bool of [{count}]": mixture.answered.dtype == torch.bool
        and mixture.answered.shape == (count,),
        f"offsets is int64 of [{bags + 1}]": mixture.offsets.dtype == torch.int64
        and mixture.offsets.shape == (bags + 1,),
        "offsets begin at 0, ascend and end at the number of terms": len(mixture.offsets) > 0
        and int(mixture.offsets[0]) == 0
        and int(mixture.offsets[-1]) == len(mixture.indices)
        and bool((mixture.offsets.diff() >= 0).all()),
        "there is one weight for each index": mixture.weights.shape == mixture.indices.shape,
        "weights are finite": bool(mixture.weights.isfinite().all()),
        f"indices are int64 from 0 to {old_size - 1}": mixture.indices.dtype == torch.int64
        and _within(mixture.indices, old_size),
        "bags are among the offsets'": bag_of.shape == (count,) and _within(bag_of, bags),
    }
    for fact, holds in facts.items():
        if not holds:
            raise SettingsError(f"{name} returned a Mixture of which it is not true that {fact}.")
    return mixture


def count_equal(mixture: Mixture) -> int:
    """How many answered rows are the same mixture as another one."""
    lengths = mixture.offsets.diff()
    bag_of = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    steps = (mixture.weights.double() / _EQUAL).round().long()
    terms = (mixture.indices + 1) * _HASH[0] ^ (steps + 1) * _HASH[1]
    terms = (terms ^ (terms >> 29)) * _HASH[1]
    marks = torch.zeros(len(lengths), dtype=torch.int64).index_add_(
        0, bag_of, terms ^ (terms >> 31)
    )
    rows = marks[mixture.bag_of(slice(None))[mixture.answered]]
    counts = torch.unique(rows, return_counts=True)[1]
    return int(counts[counts > 1].sum())


def _offsets(counts: torch.Tensor) -> torch.Tensor:
    offsets = torch.zeros(len(counts) + 1, dtype=torch.int64)
    torch.cumsum(counts, 0, out=offsets[1:])
    return offsets


def _within(indices: torch.Tensor, size: int) -> bool:
    return not len(indices) or bool(indices.min() >= 0 and indices.max() < size)
