"""Ranks that come late, or not at all; runs are counted so that all can try again."""

from __future__ import annotations

from pathlib import Path

import late_jobs as jobs
import pytest
from ranks import Ranks, started

GIVEN_UP = (
    "WarmStartError: Rank 1 did not answer within 1 s. No rank has changed anything. Every rank "
    "has to call this: see what became of the one that has not, or raise timeout=, for which the "
    "others wait."
)


def test_who_did_not_come_can_try_again_with_the_others(two: Ranks) -> None:
    assert two.run(jobs.miss_one) == [[GIVEN_UP, "", ""], ["", "", ""]]


def test_who_comes_late_is_told_and_can_try_again(two: Ranks) -> None:
    assert two.run(jobs.come_late) == [[GIVEN_UP, ""]] * 2


def test_a_process_that_was_in_other_runs_begins_anew_with_the_others(tmp_path: Path) -> None:
    with started(2) as ranks:
        assert ranks.run(jobs.begin_anew, str(tmp_path)) == [[GIVEN_UP], [""]]


@pytest.mark.parametrize("times", [0, 1, 2])  # before it agrees, then before it is ready
def test_a_store_that_is_gone_is_told(two: Ranks, times: int) -> None:
    (first, again), (second, once_more) = two.run(jobs.lose_the_store, times, True)
    assert first == GIVEN_UP
    assert second.startswith("WarmStartError: Rank 0 cannot be reached: Broken pipe.")
    assert second.endswith("This rank has changed nothing.")
    assert again == once_more == ""


def test_what_cannot_be_told_is_raised_all_the_same(two: Ranks) -> None:
    (first, again), (second, once_more) = two.run(jobs.lose_the_store, 1, False)
    assert [first.partition(":")[0], second.partition(":")[0]] == ["PlanError"] * 2
    assert again == once_more == ""


def test_who_may_keep_the_store_waits_until_the_others_know(two: Ranks) -> None:
    assert two.run(jobs.end_at_once) == [2, 0]
