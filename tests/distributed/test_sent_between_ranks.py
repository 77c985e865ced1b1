"""From a model that is sharded in another way, in memory: what other ranks have is sent."""

from __future__ import annotations

import pytest
import sent_jobs as jobs
from random_jobs import fill_at_random
from ranks import ENDED, Ranks, started
from sharded_models import SHARDINGS

UNCHANGED = "No rank has changed anything."
PAIRS = [
    ("fsdp", "columns"),
    ("columns", "fsdp"),
    ("tensor_parallel", "fsdp_of_columns"),
    ("fsdp", "hsdp"),
    ("fsdp_over_tensor_parallel", "columns"),
    ("hsdp", "tensor_parallel"),
    ("fsdp", "data_parallel"),
    ("columns", "replicated"),
]


@pytest.mark.parametrize(("source", "how"), PAIRS)
def test_every_shard_is_its_slice_whoever_had_it(two: Ranks, source: str, how: str) -> None:
    came = two.run(jobs.fill_from_another, source, how)
    assert any(came) == ((source, how) != ("hsdp", "tensor_parallel"))  # a copy on each of two


@pytest.mark.parametrize(("source", "how"), PAIRS[:3])
@pytest.mark.parametrize("new_rows", ["zeros", "random"])
def test_rows_and_columns_change_ranks(two: Ranks, source: str, how: str, new_rows: str) -> None:
    assert any(two.run(jobs.fill_by_words, source, how, new_rows))


@pytest.mark.parametrize(
    ("new_rows", "how"),
    [
        ("mean", "fsdp"),
        ("mean", "columns"),
        ("normal", "fsdp"),
        ("subword", "columns"),
        ("similar", "fsdp"),
        ("vectors", "tensor_parallel"),
        ("function", "fsdp"),
    ],
)
def test_new_rows_are_made_of_old_ones_on_other_ranks(two: Ranks, new_rows: str, how: str) -> None:
    assert all(two.run(jobs.fill_by_words, "fsdp", how, new_rows))


@pytest.mark.parametrize("how", ["fsdp", "columns"])
def test_layouts_change_between_ranks(two: Ranks, how: str) -> None:
    two.run(jobs.fill_of_tensorflow, how)
    two.run(jobs.fill_gates, how)


@pytest.mark.parametrize(("source", "how"), PAIRS[:2])
@pytest.mark.parametrize("name", ["Adam", "SGD"])
def test_slots_change_ranks_with_their_rows(two: Ranks, source: str, how: str, name: str) -> None:
    two.run(jobs.fill_optimizer, source, how, name)


def test_values_of_any_dtype_are_sent(two: Ranks) -> None:
    two.run(jobs.fill_dtypes)


def test_plain_models_of_a_group_get_all_of_it(two: Ranks) -> None:
    assert two.run(jobs.fill_copies) == [[True, True, False]] * 2


@pytest.mark.parametrize("placement", ["shard", "replicate"])
def test_a_model_that_one_rank_has_fills_that_of_all(two: Ranks, placement: str) -> None:
    two.run(jobs.fill_from_rank_1, placement)


def test_from_anyhow_to_anyhow(two: Ranks) -> None:
    assert any(two.run(fill_at_random, list(range(8))))


def test_two_models_fill_a_third(two: Ranks) -> None:
    two.run(jobs.fill_from_two_models)


@pytest.mark.parametrize(("source", "how"), [("fsdp", "columns"), ("columns", "fsdp")])
def test_all_else_is_as_from_a_file(two: Ranks, source: str, how: str) -> None:
    two.run(jobs.fill_variously, source, how)
    two.run(jobs.fill_columns_by_feature, source, how)


@pytest.mark.parametrize("how", ["fsdp", "columns"])
def test_what_fsdp1_shows_as_shards_fills_other_models(two: Ranks, how: str) -> None:
    two.run(jobs.fill_from_fsdp1, how)


def test_tied_tensors_are_one(two: Ranks) -> None:
    two.run(jobs.fill_tied)


def test_a_models_own_rows_are_sent_before_they_are_overwritten(two: Ranks) -> None:
    two.run(jobs.fill_from_its_own_rows)


def test_who_needs_nothing_sends(two: Ranks) -> None:
    two.run(jobs.rows_that_one_rank_needs)


def test_what_may_be_kept_has_a_limit(two: Ranks) -> None:
    for error, state in two.run(jobs.too_much, 8):
        assert "To keep what other ranks have in memory takes" in error
        assert "memory_limit is 8" in error
        assert state == "as before"
    assert two.run(jobs.too_much, 1 << 20) == [("nothing", "complete")] * 2


# -- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["out of memory", "interrupted"])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("swap", [1, 5, 8])
def test_a_rank_that_cannot_send_keeps_all_from_writing(
    two: Ranks, kind: str, rank: int, swap: int
) -> None:
    answers = two.run(jobs.fail_at, rank, swap, kind, False)
    why = "MemoryError" if kind == "out of memory" else "KeyboardInterrupt"

    assert why in answers[rank][0][0]
    assert f"Rank {rank} cannot: " in answers[1 - rank][0][0]
    assert UNCHANGED in answers[1 - rank][0][0]
    assert [first for _, first in (answer[0] for answer in answers)] == ["as before"] * 2
    assert [answer[1] for answer in answers] == [("nothing", "complete")] * 2


@pytest.mark.parametrize(("rank", "swap", "together"), [(0, 7, True), (1, 7, True), (1, 5, False)])
def test_a_rank_that_is_killed_leaves_the_others_as_they_were(
    rank: int, swap: int, together: bool
) -> None:
    with started(2) as ranks:
        answers = ranks.each(jobs.fail_at, rank, swap, "killed", together)

    assert answers[rank] == ENDED
    error, state = answers[1 - rank][0]
    assert f"Rank {rank} did not answer within {jobs.SOON:g} s. {UNCHANGED}" in error
    assert state == "as before"


def test_a_rank_that_is_killed_while_the_group_is_made_is_named() -> None:
    with started(2) as ranks:
        answers = ranks.each(jobs.killed_in_group, 0)

    assert answers[0] == ENDED
    error, state = answers[1]
    silent = f"WarmStartError: Rank 0 did not answer within {jobs.SOON:g} s. {UNCHANGED}"
    assert error.startswith(silent)
    assert state == "as before"


def test_a_rank_that_does_not_come_is_named(two: Ranks) -> None:
    (of_0, of_1) = two.run(jobs.late_on_rank_1)

    assert f"Rank 1 did not answer within {jobs.AT_ONCE:g} s. {UNCHANGED}" in of_0[0][0]
    assert [of_0[0][1], of_1[0][1]] == ["as before"] * 2
    assert [of_0[1], of_1[1]] == [("nothing", "complete")] * 2


# -- many ranks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [how for how in SHARDINGS if how != "data_parallel"])
@pytest.mark.parametrize("how", SHARDINGS)
def test_many_ranks_fill_each_others_shards(many: Ranks, source: str, how: str) -> None:
    many.run(jobs.fill_from_another, source, how)
    many.run(jobs.fill_by_words, source, how, "random")


def test_many_ranks_from_anyhow_to_anyhow(many: Ranks) -> None:
    assert any(many.run(fill_at_random, list(range(20))))


def test_many_ranks_make_new_rows_and_slots(many: Ranks) -> None:
    many.run(jobs.fill_by_words, "columns", "fsdp", "mean")
    many.run(jobs.fill_optimizer, "fsdp_over_tensor_parallel", "fsdp", "Adam")
    many.run(jobs.fill_gates, "fsdp")
    many.run(jobs.fill_tied)
    many.run(jobs.fill_dtypes)
