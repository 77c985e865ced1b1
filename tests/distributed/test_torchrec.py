"""TorchRec's tables, however they are spread over processes: `make torchrec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed_page import blocks
from ranks import HAS_TORCHREC, Ranks

import torch_warmstart as tws

pytestmark = pytest.mark.skipif(not HAS_TORCHREC, reason="TorchRec comes with `make torchrec`")

WAYS = ("row_wise", "table_wise", "column_wise", "table_row_wise", "grid", "data_parallel")
OPTIMIZERS = ("Adagrad", "RowWiseAdagrad")
SLOTS = [f"{path}.weight/momentum1" for path in ("ebc.embedding_bags.t0", "ec.embeddings.e1")]


def _run(ranks: Ranks, job: str, *args: object) -> list[Any]:
    return ranks.call("torchrec_jobs", job, *args)  # to import it takes TorchRec


@pytest.mark.parametrize("way", WAYS)
def test_every_shard_is_its_slice_of_the_whole(two: Ranks, way: str) -> None:
    _run(two, "fill_plainly", way)


@pytest.mark.parametrize("way", WAYS)
def test_rows_move_by_a_vocabulary_to_wherever_they_lie(two: Ranks, way: str) -> None:
    _run(two, "fill_with_vocabulary", way)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_what_kernels_keep_moves_with_the_rows(two: Ranks, way: str, optimizer: str) -> None:
    assert sum(_run(two, "fill_fused", way, optimizer)) > 0


@pytest.mark.parametrize("way", WAYS)
def test_tables_that_are_shown_as_dtensors_are_the_same(two: Ranks, way: str) -> None:
    assert sum(_run(two, "fill_dtensors", way)) > 0


@pytest.mark.parametrize("way", WAYS)
def test_more_ranks_have_smaller_slices_of_the_same(many: Ranks, way: str) -> None:
    _run(many, "fill_with_vocabulary", way)
    assert sum(_run(many, "fill_fused", way, "RowWiseAdagrad")) > 0


@pytest.mark.parametrize("way", WAYS)
def test_what_dcp_saved_of_one_model_fills_another(two: Ranks, way: str, tmp_path: Path) -> None:
    assert sum(_run(two, "fill_from_directory", way, str(tmp_path))) > 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_dtensor", [False, True])
def test_what_one_model_has_in_memory_fills_another(two: Ranks, way: str, is_dtensor: bool) -> None:
    assert sum(_run(two, "fill_from_memory", way, is_dtensor)) > 0


@pytest.mark.parametrize("source", [way for way in WAYS if way != "data_parallel"])
@pytest.mark.parametrize("is_dtensor", [False, True])
def test_tables_in_memory_fill_those_that_are_spread_otherwise(
    two: Ranks, source: str, is_dtensor: bool
) -> None:
    for way in WAYS:
        assert sum(_run(two, "fill_from_another_way", source, way, is_dtensor)) > 0


def test_an_optimizer_of_kernels_that_is_not_known_is_refused_by_name(two: Ranks) -> None:
    for said in _run(two, "refuse_lars"):
        assert "FBGEMM's lars_sgd" in said
        assert "leave `optimizer` out" in said


def test_sums_of_a_cut_are_not_kept_where_its_columns_move(two: Ranks) -> None:
    for said in _run(two, "move_columns_of_cuts"):
        assert "ebc.embedding_bags.t0.weight/momentum1" in said
        assert "columns of it move" in said


def test_what_adagrad_or_lars_kept_is_taken_and_said(two: Ranks) -> None:
    for problems, warnings, uncertain in _run(two, "plan_from", "Adagrad"):
        assert not problems
        assert warnings == ["slot-of-presumed-kind"]
        assert set(SLOTS) <= set(uncertain)
    for found in _run(two, "plan_from", "RowWiseAdagrad"):
        assert found == ("", [], [])  # no other keeps a number for each row


def test_averages_are_not_taken_for_adagrads_sums(two: Ranks) -> None:
    for problems, _, _ in _run(two, "plan_from", "Adagrad", "exp_avg_sq"):
        assert "is of FBGEMM's Adam" in problems
        assert "FBGEMM's Adagrad cannot go on" in problems


def test_spread_tables_keep_their_vocabulary_and_the_way_to_change_it_is_said(two: Ranks) -> None:
    for said in _run(two, "change_spread_tables"):
        (text,) = said
        assert text.startswith("TorchRec has spread the tables over ranks")
        assert "before DistributedModelParallel" in text


def test_which_row_an_id_has_is_read_from_what_several_ranks_saved(
    two: Ranks, tmp_path: Path
) -> None:
    ids = [5, 900, 17, 333, 640, 41]
    answers = two.call("zch_jobs", "train_and_save", str(tmp_path), ids)
    with tws.load_checkpoint(tmp_path) as checkpoint:
        keys = checkpoint.tables()["t"].keys
    for rows in answers:
        assert keys.rows(ids).tolist() == [rows[number] for number in ids]
    assert {row // 6 for row in answers[0].values()} == {0, 1}  # each rank has some


def test_the_block_of_the_page_moves_a_table_and_its_sums(two: Ranks, tmp_path: Path) -> None:
    (code,) = blocks()["TorchRec"]
    moved = "remapped, 4 copied, 1 initialised; 2 dropped"
    table = "ebc.embedding_bags.songs.weight"
    for said in two.call("torchrec_page_jobs", "run", code, str(tmp_path)):
        assert said[table] == said[f"{table}/momentum1"] == moved
        assert said["over.weight"].startswith("copied")
