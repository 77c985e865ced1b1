"""Each rank reads what becomes its own shards, and has no more than that in memory at once."""

from __future__ import annotations

from pathlib import Path

import jobs
import pytest
import reading_jobs as reading
import torch
from bundle_writer import BundleEntry, BundleSlice, DType, write_bundle
from ranks import Ranks
from safetensors.torch import save_file

HEADER = 4_096  # bytes of a file's header, and what is read with it
WHOLE = sum(tensor.nbytes for tensor in reading.table_state().values())
ONES, ONES_UP = (torch.ones_like(tensor) for tensor in reading.table_state().values())
AS_IN_TORCH = {"table.weight": "identity", "up.weight": "identity"}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "table.safetensors"
    save_file(reading.table_state(), path, {"format": "pt"})
    return str(path)


@pytest.mark.parametrize("how", ["fsdp", "tensor_parallel"])
def test_of_row_boxes_a_rank_asks_for_its_share(two: Ranks, file: str, how: str) -> None:
    asked = two.run(reading.read_shares, how, file)

    for count, share, largest in asked:
        assert share < 0.75 * WHOLE
        assert count <= 1.05 * share + HEADER
        assert largest <= share


def test_of_column_boxes_whole_rows_are_asked_for_and_a_part_is_kept(two: Ranks, file: str) -> None:
    for count, share, largest in two.run(reading.read_shares, "columns", file):
        assert count <= 1.05 * WHOLE + HEADER
        assert largest <= share


def test_of_a_vocabulary_only_the_rows_of_the_shard_are_asked_for(two: Ranks, file: str) -> None:
    for count, rows in two.run(reading.read_rows, file):
        assert count <= 1.05 * rows + HEADER


def test_checksums_are_checked_once_by_all_ranks_together(two: Ranks, tmp_path: Path) -> None:
    """Ranks that share the files divide the tensors; those with copies check all they use."""
    prefix = str(tmp_path / "model.ckpt")
    state = reading.table_state()
    entries = [
        BundleEntry(name, DType.FLOAT, tensor.shape, tensor.numpy().tobytes())
        for name, tensor in state.items()
    ]
    write_bundle(prefix, entries)
    asked = two.run(reading.read_shares, "fsdp", prefix, AS_IN_TORCH)

    share = sum(share for _, share, _ in asked) / len(asked)
    total = sum(count for count, _, _ in asked)
    assert total <= 1.05 * (WHOLE + share) + len(asked) * 2 * HEADER


@pytest.mark.parametrize(("has_copies", "checked"), [(False, [1, 1]), (True, [2, 2])])
def test_ranks_with_copies_of_the_files_check_all_they_use(
    two: Ranks, tmp_path: Path, has_copies: bool, checked: list[int]
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    entries = [
        BundleEntry(name, DType.FLOAT, tensor.shape, tensor.numpy().tobytes())
        for name, tensor in {"table.weight": ONES, "up.weight": ONES_UP}.items()
    ]
    write_bundle(str(folder / "model.ckpt"), entries)
    own = str(tmp_path) if has_copies else ""
    assert two.run(reading.checked_keys, str(folder / "model.ckpt"), own) == checked


@pytest.mark.parametrize("how", ["fsdp", "columns", "fsdp_of_columns", "replicated"])
def test_a_table_in_slices_goes_to_whom_its_rows_belong(
    two: Ranks, tmp_path: Path, how: str
) -> None:
    prefix = str(tmp_path / "model.ckpt")
    table = jobs.old_state()["table.weight"]
    cuts = [(0, 2), (2, 3), (5, 2)]
    parts = [
        BundleSlice([(at, size), (0, -1)], table[at : at + size].numpy().tobytes())
        for at, size in cuts
    ]
    write_bundle(prefix, [BundleEntry("emb", DType.FLOAT, table.shape, slices=parts)])
    two.run(jobs.fill_from_slices, how, prefix)


@pytest.mark.parametrize("how", ["fsdp", "columns", "data_parallel"])
def test_a_directory_of_dcp_fills_another_sharding(two: Ranks, tmp_path: Path, how: str) -> None:
    two.run(reading.save_with_dcp, str(tmp_path))
    two.run(reading.fill_from_dcp, how, str(tmp_path))
