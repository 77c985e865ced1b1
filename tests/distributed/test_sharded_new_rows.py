"""New rows made of old ones are, on every rank, those of the unsharded table, bit for bit."""

from __future__ import annotations

import new_row_jobs
import pytest
from ranks import Ranks

ANSWERED = {
    "subword": (("subword", 2), ("normal", 2)),
    "mean": (("alias + noise", 1), ("mean + noise", 3)),
    "normal": (("normal", 4),),
    "vectors": (("vectors", 3), ("mean", 1)),
    "similar": (("similar", 3), ("mean", 1)),
    "function": (("subword", 2), ("drawn", 2)),
}


@pytest.mark.parametrize("how", ["fsdp", "columns", "replicated", "data_parallel"])
@pytest.mark.parametrize("which", ANSWERED)
def test_new_rows_are_those_of_the_whole_table(two: Ranks, how: str, which: str) -> None:
    for answered in two.run(new_row_jobs.fill_new_rows, how, which, 1):
        assert answered == ANSWERED[which]
