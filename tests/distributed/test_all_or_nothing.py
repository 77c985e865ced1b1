"""Over several ranks, too: all of them as planned, or all as they were, and the error says who."""

from __future__ import annotations

from pathlib import Path

import fault_jobs as faults
import jobs
import pytest
from ranks import ENDED, Ranks, started
from torch import nn

import torch_warmstart as tws

KINDS = pytest.mark.parametrize("how", ["fsdp", "tensor_parallel", "data_parallel"])
UNCHANGED = "No rank has changed anything."


@KINDS
def test_a_rank_that_cannot_plan_keeps_the_others_from_writing(
    two: Ranks, tmp_path: Path, how: str
) -> None:
    of_0, of_1 = two.run(faults.no_file_on_rank_1, how, jobs.save_old_state(tmp_path))

    assert of_0[0][0].startswith("WarmStartError: Rank 1 cannot: CheckpointNotFoundError: ")
    assert UNCHANGED in of_0[0][0]
    assert of_1[0][0].startswith("CheckpointNotFoundError: ")
    assert [of_0[0][1], of_1[0][1]] == ["as before", "as before"]
    assert [of_0[1], of_1[1]] == [("nothing", "complete")] * 2


@KINDS
def test_a_hook_that_raises_on_one_rank_is_undone_on_all(two: Ranks, how: str) -> None:
    (mine, state), (other, its_state) = two.run(faults.hook_raises_on_rank_0, how)

    assert "CallbackError" in mine
    assert "out of luck" in mine
    assert other.startswith("WarmStartError: Rank 0 cannot: CallbackError")
    assert "out of luck" in other
    assert (state, its_state) == ("as before", "as before")


def test_a_warning_that_is_an_error_on_one_rank_stops_all(two: Ranks, tmp_path: Path) -> None:
    path = jobs.save_old_state(tmp_path)
    (other, state), (mine, its_state) = two.run(faults.warnings_are_errors_on_rank_1, path)

    assert mine.startswith("WarmStartWarning: ")
    assert other.startswith("WarmStartError: Rank 1 cannot: WarmStartWarning")
    assert (state, its_state) == ("as before", "as before")


@KINDS
@pytest.mark.parametrize("in_memory", [False, True], ids=["file", "in memory"])
def test_a_rank_that_sees_another_checkpoint_is_named(
    two: Ranks, how: str, in_memory: bool
) -> None:
    for error, state in two.run(faults.other_content_on_rank_1, how, in_memory):
        assert error.startswith("WarmStartError: Rank 1 has other checkpoint files than rank 0. ")
        assert (
            f"{UNCHANGED} Give all ranks the same model, settings, vocabularies and files: "
            in error
        )
        assert state == "as before"


@pytest.mark.parametrize("how", ["fsdp", "data_parallel"])
def test_a_rank_with_another_vocabulary_or_plan_is_named(two: Ranks, how: str) -> None:
    for error, state in two.run(faults.other_vocabulary_on_rank_1, how):
        assert error.startswith("WarmStartError: Rank 1 has other vocabularies than rank 0. ")
        assert state == "as before"
    for error, state in two.run(faults.other_settings_on_rank_1, how):
        assert "Rank 1 has other decisions and checkpoint files than rank 0." in error
        assert state == "as before"


def test_who_is_interrupted_while_it_waits_stops_all(two: Ranks, tmp_path: Path) -> None:
    path = jobs.save_old_state(tmp_path)
    of_0, of_1 = two.run(faults.interrupted_while_waiting, path)

    assert of_0[0][0].startswith("WarmStartError: Rank 1 cannot: KeyboardInterrupt. ")
    assert of_1[0][0].startswith("KeyboardInterrupt")
    assert [of_0[0][1], of_1[0][1]] == ["as before", "as before"]
    assert [of_0[1], of_1[1]] == [("nothing", "complete")] * 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_before_all_agree_leaves_the_others_unchanged(rank: int) -> None:
    with started(2) as ranks:
        answers = ranks.each(faults.killed_before_agreement, rank)

    assert answers[rank] == ENDED
    error, state = answers[1 - rank]
    said = f"Rank {rank} did not answer within {faults.SOON:g} s. {UNCHANGED}"
    assert f"{said} Every rank has to call this: see what became" in error
    assert state == "as before"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_during_the_commit_leaves_the_others_complete(rank: int) -> None:
    with started(2) as ranks:
        answers = ranks.each(faults.killed_during_commit, rank)

    assert answers[rank] == ENDED
    error, state = answers[1 - rank]
    assert f"Rank {rank} did not answer within {faults.SOON:g} s." in error
    assert "On this rank it is complete" in error
    assert state == "complete"


def test_a_plain_model_that_one_rank_starts_alone_asks_nobody(two: Ranks) -> None:
    assert two.run(faults.alone_on_rank_0) == ["complete", "elsewhere"]


def test_plain_models_go_together_where_a_group_is_given(two: Ranks, tmp_path: Path) -> None:
    path = jobs.save_old_state(tmp_path)
    (error, state), (_, its_state) = two.run(faults.plain_models_of_a_group, path)

    assert error.startswith("WarmStartError: Rank 1 cannot: CheckpointNotFoundError")
    assert (state, its_state) == ("as before", "as before")


def test_a_process_outside_of_the_group_is_told_so(two: Ranks) -> None:
    of_0, (error, state) = two.run(faults.group_of_rank_0)

    assert of_0 == ("nothing", "complete")
    assert error.startswith("SettingsError: This process is not in process_group: ")
    assert state == "as before"


@KINDS
def test_a_plan_is_made_by_all_and_applied_by_all(two: Ranks, tmp_path: Path, how: str) -> None:
    path = jobs.save_old_state(tmp_path)
    assert two.run(faults.plans_applied, how, path) == ["complete", "complete"]


@pytest.mark.parametrize("seconds", [0, -1, True, "soon"])
def test_a_time_that_is_none_is_refused(seconds: object) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(tws.SettingsError, match="timeout must be a number of seconds above 0"):
        tws.warm_start(model, model.state_dict(), timeout=seconds)


def test_a_rank_that_cannot_finish_is_named_by_those_that_have(two: Ranks) -> None:
    (other, state), (mine, _) = two.run(faults.half_written_on_rank_1)

    assert mine.startswith("PartialWriteError: ")
    assert other.startswith("WarmStartError: Rank 1 cannot: RuntimeError: out of luck. ")
    assert "Its part may not be complete. On this rank it is complete" in other
    assert state == "complete"


@pytest.mark.parametrize("rank", [0, 1])
def test_an_interrupt_during_the_commit_is_that_ranks_own(two: Ranks, rank: int) -> None:
    answers = two.run(faults.interrupted_during_commit, rank)

    assert answers[rank][0].startswith("KeyboardInterrupt")
    assert "On this rank it is complete" in answers[rank][0]
    assert answers[1 - rank] == ("nothing", "complete")
    assert answers[rank][1] == "complete"
