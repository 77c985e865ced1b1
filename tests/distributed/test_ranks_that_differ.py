"""Ranks that hold, state or draw something else than the others: told apart, or made alike."""

from __future__ import annotations

from pathlib import Path

import differing_jobs as jobs
import numpy as np
import numpy.typing as npt
import pytest
import torch
from ranks import Ranks

from torch_warmstart.execution.ranks.all_to_all import _overlapping


@pytest.mark.parametrize("how", ["tensor parallel", "ignored"])
def test_what_all_ranks_have_is_initialised_alike_beside_shards(two: Ranks, how: str) -> None:
    two.run(jobs.initialise_on_meta, how)


@pytest.mark.parametrize("how", ["tensor parallel", "ignored"])
def test_many_ranks_initialise_alike(many: Ranks, how: str) -> None:
    many.run(jobs.initialise_on_meta, how)


@pytest.mark.filterwarnings("ignore::torch_warmstart.WarmStartWarning")
def test_what_stays_on_meta_does_so_on_all_ranks(two: Ranks) -> None:
    first, second = two.run(jobs.leave_on_meta)
    assert first == second == (False, True, ["left-on-meta"])


def test_boxes_that_are_no_division_are_refused(two: Ranks) -> None:
    for said in two.run(jobs.fill_from_two_divisions):
        assert "not in one way: a rank has [0:1, 0:2] of it, and another one [0:2, 1:2]" in said


def test_a_part_that_is_not_what_its_placements_mean_is_refused(two: Ranks) -> None:
    first, second = two.run(jobs.fill_uneven, False)
    assert "weight is a DTensor of which [2, 2] are on this process" in first
    assert "where its placements mean [3, 2]" in second
    for said in two.run(jobs.fill_uneven, True):
        assert "'weight' is a DTensor whose part on this process is no box of it" in said


OTHER = "Rank 1 has other {} than rank 0. No rank has changed anything. Give all ranks the same "


def test_ranks_with_other_initialisers_are_told(two: Ranks, tmp_path: Path) -> None:
    for told in two.run(jobs.state_other_initialisers, str(tmp_path)):
        assert len(told) == 9
        for said in told:
            assert OTHER.format("initialisers of new rows") in said, told


def test_ranks_whose_new_rows_stand_for_other_words_are_told(two: Ranks) -> None:
    for told in two.run(jobs.state_other_words):
        assert all(OTHER.format("vocabularies") in said for said in told), told


def test_ranks_with_other_older_checkpoints_are_told(two: Ranks) -> None:
    files, words = OTHER.format("checkpoint files"), OTHER.format("vocabularies")
    for told in two.run(jobs.take_from_others):
        assert [*map(str.__contains__, told, (files, words, files))] == [True] * 3, told


def test_of_several_sources_each_is_compared(two: Ranks, tmp_path: Path) -> None:
    path = tmp_path / "table.pt"
    torch.save({"0.weight": torch.zeros(3, 4)}, path)
    for said in two.run(jobs.take_from_file_and_memory, str(path)):
        assert OTHER.format("checkpoint files") in said


def test_a_rank_that_has_no_part_is_told_why(two: Ranks) -> None:
    first, (in_no_group, elsewhere, together) = two.run(jobs.start_with_the_first_alone)
    assert first == ["", "", ""]
    assert "This process is not in process_group" in in_no_group
    assert "The model is spread over rank 0, and this process is rank 1" in elsewhere
    assert together == ""


@pytest.mark.filterwarnings("ignore::torch_warmstart.WarmStartWarning")
def test_copies_that_nobody_knows_of_are_said_whoever_draws(two: Ranks) -> None:
    for normal, of_torch, mean in two.run(jobs.warn_of_copies):
        for by_file, alive in (normal, of_torch):
            assert "pass process_group=" in by_file
            assert "torch.manual_seed(...) of one seed" in alive
        assert mean == []


def test_a_mesh_on_which_torch_has_two_orders_is_refused(two: Ranks) -> None:
    for (as_target, as_source, whole), order in two.run(jobs.fill_on_a_mesh_in_reverse):
        assert "weight is a DTensor on a mesh whose ranks do not ascend" in as_target
        assert "Pass what full_tensor() makes of it" in as_source
        assert whole == ""  # a copy on each rank has no order
        assert order == ([1.0, 0.0], [1, 0])  # what torch gathers, and where it says that they lie


def _boxes(
    *pairs: tuple[list[int], list[int]],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    both = np.array(pairs)
    return both[:, 0], both[:, 1]


PINWHEEL = [([0, 0], [2, 1]), ([0, 1], [1, 3]), ([1, 2], [3, 3]), ([2, 0], [3, 2])]


def test_which_boxes_overlap() -> None:
    middle = ([1, 1], [2, 2])
    assert _overlapping(*_boxes(*PINWHEEL, middle, middle)) is None  # copies of one are none
    assert _overlapping(*_boxes(*PINWHEEL, ([1, 1], [2, 3]))) is not None
    rows = np.arange(4096)[:, None] * np.array([10, 0])
    assert _overlapping(rows, rows + np.array([10, 4])) is None
    assert _overlapping(rows, rows + np.array([11, 4])) is not None


def test_boxes_at_random_are_compared_with_each_other() -> None:
    draw = np.random.default_rng(0)
    found = [0, 0]
    for _ in range(300):
        starts = draw.integers(0, 5, (draw.integers(1, 7), draw.integers(1, 4)))
        ends = starts + draw.integers(1, 3, starts.shape)
        first, last = np.maximum(starts[:, None], starts), np.minimum(ends[:, None], ends)
        is_one = (starts[:, None] == starts).all(2) & (ends[:, None] == ends).all(2)
        expected = bool(((first < last).all(2) & ~is_one).any())
        assert (_overlapping(starts, ends) is not None) == expected
        found[expected] += 1
    assert min(found) > 50
