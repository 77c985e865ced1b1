"""The same with four and eight ranks, some of which have nothing of a small layer."""

from __future__ import annotations

from pathlib import Path

import dcp_jobs
import fault_jobs as faults
import jobs
import pytest
from ranks import Ranks
from sharded_models import SHARDINGS

EACH = pytest.mark.parametrize("how", SHARDINGS)


@EACH
def test_every_shard_of_many_is_the_slice_of_the_whole(
    many: Ranks, tmp_path: Path, how: str
) -> None:
    many.run(jobs.fill_plainly, how, jobs.save_old_state(tmp_path))
    many.run(jobs.fill_from_tensorflow, how)


@EACH
@pytest.mark.parametrize("source", ["torch", "tensorflow", "columns of the file"])
def test_a_vocabulary_is_spread_over_many(many: Ranks, how: str, source: str) -> None:
    many.run(jobs.fill_with_vocabulary, how, source)


@pytest.mark.parametrize("how", ["fsdp", "hsdp", "tensor_parallel", "fsdp_over_tensor_parallel"])
def test_slots_are_spread_over_many(many: Ranks, how: str) -> None:
    many.run(jobs.fill_optimizer, how, "Adam")


@pytest.mark.parametrize("how", ["fsdp", "hsdp", "fsdp_over_tensor_parallel"])
def test_models_on_meta_are_spread_over_many(many: Ranks, how: str) -> None:
    many.run(jobs.fill_from_meta, how)


@pytest.mark.parametrize("how", ["fsdp", "hsdp"])
def test_one_of_many_that_cannot_stops_all(many: Ranks, tmp_path: Path, how: str) -> None:
    answers = many.run(faults.no_file_on_rank_1, how, jobs.save_old_state(tmp_path))

    assert [first[1] for first, _ in answers] == ["as before"] * many.count
    assert [second for _, second in answers] == [("nothing", "complete")] * many.count
    assert all("Rank 1 cannot" in first[0] for at, (first, _) in enumerate(answers) if at != 1)


@pytest.mark.parametrize("how", ["fsdp", "columns", "hsdp"])
def test_a_planner_reads_for_many(many: Ranks, tmp_path: Path, how: str) -> None:
    many.run(dcp_jobs.save_renamed, str(tmp_path))
    many.run(dcp_jobs.load_with_vocabulary, how, str(tmp_path), 50)
