"""A state_dict of sharded tensors in memory, of which each rank has what it needs."""

from __future__ import annotations

import pytest
import sharded_source_jobs as jobs
from ranks import Ranks
from sharded_models import SHARDINGS

EACH = pytest.mark.parametrize("how", [how for how in SHARDINGS if how != "data_parallel"])
LINE = "torch.distributed.checkpoint.save(state, checkpoint_id=directory)"


@EACH
@pytest.mark.parametrize("as_module", [False, True])
def test_each_rank_takes_its_own_shards(two: Ranks, how: str, as_module: bool) -> None:
    two.run(jobs.fill_from_sharded, how, as_module)


@pytest.mark.parametrize("how", ["fsdp", "columns", "hsdp"])
def test_a_tensor_that_one_rank_has_all_of_is_sharded_too(two: Ranks, how: str) -> None:
    two.run(jobs.fill_small, how)


@pytest.mark.parametrize("how", ["fsdp", "columns"])
def test_names_are_as_in_any_state_dict(two: Ranks, how: str) -> None:
    two.run(jobs.fill_renamed, how)


@pytest.mark.parametrize("how", ["fsdp", "columns", "fsdp_of_columns", "replicated"])
def test_rows_move_within_what_a_rank_has(two: Ranks, how: str) -> None:
    two.run(jobs.fill_by_words, how)


@pytest.mark.parametrize("how", ["fsdp", "columns", "hsdp"])
def test_slots_are_taken_from_shards(two: Ranks, how: str) -> None:
    two.run(jobs.fill_optimizer, how)


@pytest.mark.parametrize("how", ["fsdp", "columns", "hsdp"])
def test_a_model_is_filled_from_its_own_shards(two: Ranks, how: str) -> None:
    two.run(jobs.fill_from_itself, how)


def test_a_plain_model_cannot_be_made_of_a_part(two: Ranks) -> None:
    for rank, said in enumerate(two.run(jobs.told_to_a_plain_model)):
        assert said.startswith(f"{rank}: ")
        assert LINE in said


def test_a_sharded_state_can_be_listed_and_not_read_whole(two: Ranks) -> None:
    for shape, said in two.run(jobs.listed):
        assert shape == [7, 6]
        assert LINE in said


def test_many_ranks_take_their_own(many: Ranks) -> None:
    many.run(jobs.fill_from_sharded, "fsdp", False)
    many.run(jobs.fill_from_sharded, "fsdp_over_tensor_parallel", False)
