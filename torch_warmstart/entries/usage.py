"""How often and when the entries of a vocabulary were seen: a column of a number for each."""

from __future__ import annotations

from datetime import date

import torch

from torch_warmstart.values import frozen

UNKNOWN = -1  # of a day
EPOCH = date(1970, 1, 1).toordinal()  # day 0
LAST_DAY = date.max.toordinal() - EPOCH


@frozen(eq=False)
class Usage:
    """What is known of the use of a vocabulary's listed entries, in their order; on the CPU.

    Attributes:
        counts: How often each was seen, altogether since it was admitted: int64.
        last_seen: The day on which each was last seen, in days since 1970-01-01: int32. -1: not
            known.
        born: The day on which each got its row, or got it again: int32. -1: not known.

    Example:
        >>> usage = tws.update_vocabulary(["a"], {"a": 3, "b": 1}, today=20000).usage
        >>> usage.counts, usage.born
        (tensor([3, 1]), tensor([   -1, 20000], dtype=torch.int32))
    """

    counts: torch.Tensor
    last_seen: torch.Tensor
    born: torch.Tensor

    def __len__(self) -> int:
        return len(self.counts)

    def has_days(self) -> bool:
        """Whether all days are days, from 1970 to 9999, or not known."""
        days = [days for days in (self.last_seen, self.born) if len(days)]
        return all(int(d.min()) >= UNKNOWN and int(d.max()) <= LAST_DAY for d in days)

    def slice(self, start: int, stop: int) -> Usage:
        """That of some entries, without a copy."""
        return Usage(self.counts[start:stop], self.last_seen[start:stop], self.born[start:stop])
