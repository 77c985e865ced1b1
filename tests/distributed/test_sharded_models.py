"""Every shard of a sharded model is the slice of the unsharded result, bit for bit."""

from __future__ import annotations

from pathlib import Path

import jobs
import pytest
from ranks import Ranks
from sharded_models import SHARDINGS

EACH = pytest.mark.parametrize("how", SHARDINGS)
SOME = pytest.mark.parametrize("how", ["fsdp", "columns", "tensor_parallel", "data_parallel"])


@EACH
def test_every_shard_is_the_slice_of_the_whole(two: Ranks, tmp_path: Path, how: str) -> None:
    two.run(jobs.fill_plainly, how, jobs.save_old_state(tmp_path))


@EACH
def test_of_a_transposed_kernel_a_rank_gets_its_own_rows_or_columns(two: Ranks, how: str) -> None:
    two.run(jobs.fill_from_tensorflow, how)


@EACH
@pytest.mark.parametrize("source", ["torch", "tensorflow", "columns of the file"])
def test_a_vocabulary_is_for_any_axis_sharded_or_not(two: Ranks, how: str, source: str) -> None:
    """New rows are random, and the ranks have unequal seeds: replicas stay equal."""
    two.run(jobs.fill_with_vocabulary, how, source)


@SOME
def test_the_generator_of_the_first_rank_counts(two: Ranks, how: str) -> None:
    two.run(jobs.fill_with_generator, how)


@SOME
@pytest.mark.parametrize("optimizer", jobs.OPTIMIZERS)
def test_slots_follow_their_parameters(two: Ranks, how: str, optimizer: str) -> None:
    two.run(jobs.fill_optimizer, how, optimizer)


@pytest.mark.parametrize("how", ["fsdp", "data_parallel"])
def test_what_wrappers_add_is_no_part_of_a_name(two: Ranks, how: str) -> None:
    two.run(jobs.fill_wrapped, how)


@pytest.mark.parametrize("how", ["fsdp", "columns", "data_parallel"])
def test_hooks_see_sharded_tensors(two: Ranks, how: str) -> None:
    two.run(jobs.fill_hooked, how)


def test_parameters_that_a_forward_pass_left_gathered_are_sharded_first(two: Ranks) -> None:
    two.run(jobs.fill_gathered)


@pytest.mark.parametrize("how", ["fsdp", "fsdp_of_columns", "hsdp", "tensor_parallel"])
def test_a_sharded_model_on_meta_is_made_of_shards(two: Ranks, how: str) -> None:
    two.run(jobs.fill_from_meta, how)


def test_a_sharded_model_on_meta_stays_there_when_one_rank_fails(two: Ranks) -> None:
    two.run(jobs.undo_on_meta, "fsdp")


def test_copies_that_nobody_knows_of_may_differ_and_that_is_said(two: Ranks) -> None:
    assert two.run(jobs.fill_copies, True) == [(True, [])] * 2
    assert two.run(jobs.fill_copies, False) == [(False, ["replicas-may-differ"])] * 2


@pytest.mark.filterwarnings("ignore:Please use DTensor instead:FutureWarning")
def test_a_sharded_tensor_that_answers_few_questions_is_filled(two: Ranks) -> None:
    assert two.run(jobs.fill_sharded_tensor) == [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0], [6.0, 7.0]]]
