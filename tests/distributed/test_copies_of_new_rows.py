"""Copies of new rows are equal on all ranks, or nobody writes: whoever makes them."""

from __future__ import annotations

import copy_jobs
import pytest
from ranks import Ranks

COPIES = pytest.mark.parametrize("how", ["data_parallel", "replicated", "hsdp"])


@COPIES
@pytest.mark.parametrize("which", copy_jobs.INITIALIZERS)
def test_new_rows_that_differ_between_copies_are_refused(two: Ranks, how: str, which: str) -> None:
    for error, state in two.run(copy_jobs.draw, how, which, False):
        assert error.startswith(
            "WarmStartError: Rank 1 has made other new rows for table.weight than rank 0. "
            "No rank has changed anything. A backup_initializer has to make the same rows"
        )
        assert state == "as before"


@COPIES
@pytest.mark.parametrize("which", ["whole", "of rows"])
def test_one_seed_for_all_ranks_makes_them_equal(two: Ranks, how: str, which: str) -> None:
    assert [error for error, _ in two.run(copy_jobs.draw, how, which, True)] == ["nothing"] * 2


def test_shards_without_copies_are_not_compared(two: Ranks) -> None:
    assert [error for error, _ in two.run(copy_jobs.draw, "fsdp", "whole", False)] == [
        "nothing"
    ] * 2


def test_of_many_copies_all_that_differ_are_named(many: Ranks) -> None:
    for error, state in many.run(copy_jobs.draw, "hsdp", "whole", False):
        assert "has made other new rows for table.weight than rank 0" in error
        assert ("1 other rank has a problem, too." in error) == (many.count == 8)
        assert state == "as before"
