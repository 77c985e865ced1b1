"""TorchRec's tables, however they are spread over processes: `make torchrec`."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import HAS_TORCHREC, Ranks

pytestmark = pytest.mark.skipif(not HAS_TORCHREC, reason="TorchRec comes with `make torchrec`")

WAYS = ("row_wise", "table_wise", "column_wise", "table_row_wise", "data_parallel")


OPTIMIZERS = ("Adagrad", "RowWiseAdagrad")


def _run(ranks: Ranks, job: str, *args: object) -> list[int]:
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
