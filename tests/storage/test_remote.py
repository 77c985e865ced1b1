"""Checkpoints behind URLs: what is fetched, and how often."""

from __future__ import annotations

import errno
import itertools
import os
import uuid
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from remote_helpers import COLUMNS, ROWS, TABLE, Model, described, fails_with, settings_for, upload
from safetensors.torch import save_file

import torch_warmstart as tw
from torch_warmstart.formats import registry
from torch_warmstart.storage import Storage, files

ROW_BYTES = COLUMNS * 4


class Fetches(list[tuple[str, int, int]]):
    """Every range that was asked for: file name, start, stop; and how they were grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []  # bytes of each call

    def of(self, name: str) -> list[tuple[int, int]]:
        return [(start, stop) for file, start, stop in self if name in file]

    def sizes(self, name: str = ".data-") -> list[int]:
        return [stop - start for start, stop in self.of(name)]


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> Fetches:
    seen = Fetches()
    fetch = MemoryFileSystem.cat_ranges

    def counting(self, paths, starts, ends, **options):
        seen.extend((p.rsplit("/", 1)[-1], *r) for p, *r in zip(paths, starts, ends, strict=True))
        seen.calls.append(sum(ends) - sum(starts))
        return fetch(self, paths, starts, ends, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", counting)
    return seen


def assert_nothing_is_fetched_twice(fetches: Fetches) -> None:
    for name in {name for name, _, _ in fetches}:
        ranges = sorted(fetches.of(name))
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges)), (name, ranges)


# ---- What is fetched -------------------------------------------------------------------------


def test_opening_fetches_the_state_file_and_the_index_once(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    assert len(list(checkpoint)) == 23
    assert [checkpoint.location(key).num_slices for key in ("table", "sliced")] == [0, 3]

    assert len(fetches.of(".index")) == 1
    assert len(fetches.of("checkpoint")) == 1
    assert fetches.of(".data-") == []
    assert_nothing_is_fetched_twice(fetches)


def test_a_tensor_costs_its_own_bytes(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    for _ in range(2):
        assert torch.equal(checkpoint.get_tensor("other"), torch.from_numpy(TABLE[:50] + 1))

    assert fetches.sizes() == [50 * ROW_BYTES]
    assert fetches.of("00001-of-00002") == [(0, 50 * ROW_BYTES)]


def test_rows_cost_their_own_bytes(remote, fetches):
    rows = torch.tensor([9_999, 3, 4, 3])
    checkpoint = tw.load_checkpoint(remote)
    for _ in range(2):
        assert torch.equal(checkpoint.get_tensor("table", rows), torch.from_numpy(TABLE)[rows])

    assert sorted(fetches.of(".data-")) == [
        (3 * ROW_BYTES, 5 * ROW_BYTES),
        (9_999 * ROW_BYTES, 10_000 * ROW_BYTES),
    ]
    assert len(fetches.calls) == 3  # state file, index, both ranges together


def test_rows_and_then_the_whole_fetch_each_byte_once(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    checkpoint.get_tensor("table", torch.tensor([5, 5_000]))
    assert torch.equal(checkpoint.get_tensor("table"), torch.from_numpy(TABLE))

    assert sum(fetches.sizes()) == TABLE.nbytes
    assert_nothing_is_fetched_twice(fetches)


def test_rows_of_a_sliced_tensor_fetch_their_slices_only(remote, fetches):
    checkpoint = registry.open_checkpoint(remote, storage=Storage(max_gap=0))
    rows = torch.tensor([9, 1])
    expected = torch.from_numpy(TABLE[:10, :4])

    assert torch.equal(checkpoint.get_tensor("sliced", rows), expected[rows])
    assert fetches.sizes() == [16, 16]
    assert torch.equal(checkpoint.get_tensor("sliced"), expected)
    assert sum(fetches.sizes()) == 10 * 16
    assert_nothing_is_fetched_twice(fetches)


def test_small_tensors_are_fetched_together(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    keys = [f"small/{n}" for n in range(20)]
    checkpoint.prefetch(keys)
    fetched = len(fetches)
    values = [float(checkpoint.get_tensor(key)[0]) for key in keys]

    assert values == list(range(20))
    assert fetches.sizes() == [20 * 16]
    assert len(fetches) == fetched


@pytest.mark.parametrize(("max_gap", "sizes"), [(0, [16, 16]), (15, [16, 16]), (16, [48])])
def test_max_gap_says_what_is_rather_fetched_for_nothing(remote, fetches, max_gap, sizes):
    checkpoint = registry.open_checkpoint(remote, storage=Storage(max_gap=max_gap))
    checkpoint.prefetch(["small/0", "small/2"])

    assert fetches.sizes() == sizes


def test_a_gap_is_not_bridged_over_what_is_there_already(remote, fetches):
    """The owner of a tensor may have written to it: it must not be fetched over."""
    checkpoint = tw.load_checkpoint(remote, verify=False)
    mine = checkpoint.get_tensor("small/1")
    mine[:] = -1
    checkpoint.prefetch(["small/0", "small/2"])

    assert mine.tolist() == [-1] * 4
    assert_nothing_is_fetched_twice(fetches)


def test_what_is_in_flight_is_bounded(remote, fetches, monkeypatch):
    monkeypatch.setattr(files, "_PIECE", 10_000)
    monkeypatch.setattr(files, "_MAX_BYTES_IN_FLIGHT", 100_000)
    checkpoint = tw.load_checkpoint(remote)
    assert torch.equal(checkpoint.get_tensor("table"), torch.from_numpy(TABLE))

    assert max(fetches.sizes()) == 10_000
    assert max(fetches.calls) == 100_000
    assert sum(fetches.sizes()) == TABLE.nbytes
    assert len(fetches.calls) == 2 + -(-TABLE.nbytes // 100_000)


# ---- A warm start ----------------------------------------------------------------------------


def test_a_warm_start_from_a_url_is_the_same_as_from_a_path(local, remote, fetches):
    here, there = Model(), Model()
    expected = tw.warm_start(here, settings_for(str(local)))
    report = tw.warm_start(there, settings_for(remote))

    assert described(report, remote) == described(expected, str(local))
    assert torch.equal(there.words[:, 0], torch.tensor([32.0, 0.0, 0.0, 0.0]))
    for name, parameter in here.named_parameters():
        assert torch.equal(parameter, there.get_parameter(name)), name
    assert_nothing_is_fetched_twice(fetches)
    assert len(fetches.of("new.txt")) == 1


def test_a_plan_fetches_no_tensor(remote, fetches):
    tw.plan_warm_start(Model(), settings_for(remote))
    assert fetches.of(".data-") == []


# ---- Rows through a remapping ----------------------------------------------------------------

OLD = [f"token {n}" for n in range(ROWS)]
NEEDED = [9_000, 3, 4, 2_000, 2_001, 2_002]
NEW = ["new 1", *(OLD[row] for row in NEEDED), "new 2"]


def remapped(url, target, key, *, old=OLD, new=NEW, axis=0, **options):
    """A table of `target`'s shape, of ones at first, that was warm-started from a key."""
    model = torch.nn.Module()
    model.table = torch.nn.Parameter(torch.ones(target), requires_grad=False)
    vocabulary = tw.VocabInfo(new, len(new), 0, old, len(old), axis=axis)
    options.setdefault("max_gap", 0)
    settings = tw.WarmStartSettings(
        url,
        vars_to_warm_start=["table"],
        var_name_to_vocab_info={"table": vocabulary},
        var_name_to_prev_var_name={"table": key},
        **options,
    )
    tw.warm_start(model, settings)
    return model.table


def row_range(first: int, behind: int) -> tuple[int, int]:
    return first * ROW_BYTES, behind * ROW_BYTES


def test_only_the_rows_a_remapping_needs_are_fetched(remote, local, fetches):
    table = remapped(remote, (8, COLUMNS), "table", verify=False)

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    assert bool((table[[0, 7]] == 0).all())
    wanted = [row_range(3, 5), row_range(2_000, 2_003), row_range(9_000, 9_001)]
    assert sorted(fetches.of(".data-")) == wanted
    assert len(fetches.calls) == 3  # state file, index, all ranges together
    assert torch.equal(table, remapped(str(local), (8, COLUMNS), "table", verify=False))


@pytest.mark.parametrize(
    ("max_gap", "ranges"), [(0, 3), (1_994 * ROW_BYTES, 3), (1_995 * ROW_BYTES, 2), (1 << 20, 1)]
)
def test_rows_a_small_gap_apart_are_one_range(remote, fetches, max_gap, ranges):
    table = remapped(remote, (8, COLUMNS), "table", verify=False, max_gap=max_gap)

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    assert len(fetches.of(".data-")) == ranges


def test_a_checksum_needs_the_whole_table(remote, fetches):
    table = remapped(remote, (8, COLUMNS), "table")

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    assert fetches.sizes() == [TABLE.nbytes]


def test_nothing_is_fetched_for_rows_that_are_all_new(remote, fetches):
    new = [f"new {n}" for n in range(5)]
    table = remapped(remote, (5, COLUMNS), "table", new=new, verify=False)

    assert bool((table == 0).all())
    assert fetches.of(".data-") == []


@pytest.mark.parametrize("new", [[0, 7, 5, 5_000], [9, 8, 2, 1, 0], [5_000, 5_001]])
@pytest.mark.parametrize("verify", [True, False])
def test_rows_are_gathered_from_slices(remote, local, fetches, new, verify):
    """The table is cut into rows 0 to 4, 5 to 7 and 8 to 9."""
    old, rows = OLD[:10], [row for row in new if row < 10]
    options = {"old": old, "new": [OLD[row] for row in new], "verify": verify}
    table = remapped(remote, (len(new), 4), "sliced", **options)

    expected = torch.zeros(len(new), 4)
    expected[: len(rows)] = torch.from_numpy(TABLE[:10, :4])[rows]
    assert torch.equal(table, expected)
    assert torch.equal(table, remapped(str(local), (len(new), 4), "sliced", **options))
    assert sum(fetches.sizes()) == (160 if verify else len(rows) * 16)
    assert_nothing_is_fetched_twice(fetches)


def test_columns_of_the_file_need_all_of_it(remote, fetches):
    new = [OLD[2], "new", OLD[0]]
    table = remapped(remote, (50, 3), "other", old=OLD[:COLUMNS], new=new, axis=1, verify=False)

    assert torch.equal(table[:, [0, 2]], torch.from_numpy(TABLE[:50, [2, 0]] + 1))
    assert fetches.sizes() == [50 * ROW_BYTES]


@pytest.mark.parametrize(("key", "sizes"), [("other", [64, 64]), ("sliced", [16, 16])])
def test_rows_of_the_file_that_a_layout_makes_columns_are_rows(remote, local, fetches, key, sizes):
    """As the inputs of a Dense kernel are: [in, out] in TensorFlow, [out, in] in torch."""
    rows, columns = (50, COLUMNS) if key == "other" else (10, 4)
    options = {
        "old": OLD[:rows],
        "new": [OLD[9], "new", OLD[1]],
        "axis": 1,
        "verify": False,
        "var_name_to_layout": {"table": "transpose"},
    }
    table = remapped(remote, (columns, 3), key, **options)

    assert fetches.sizes() == sizes
    whole = tw.load_checkpoint(str(local)).get_tensor(key)
    assert torch.equal(table[:, [0, 2]], whole[[9, 1]].T)
    assert bool((table[:, 1] == 0).all())


def test_a_dtype_is_changed_from_slices_too(remote, local):
    model = torch.nn.Module()
    model.table = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.bfloat16))
    settings = tw.WarmStartSettings(
        remote,
        var_name_to_vocab_info={"table": tw.VocabInfo(["8", "x", "1"], 3, 0, list("0123456789"))},
        var_name_to_prev_var_name={"table": "sliced"},
    )
    tw.warm_start(model, settings)
    whole = tw.load_checkpoint(str(local)).get_tensor("sliced").to(torch.bfloat16)
    assert torch.equal(model.table[[0, 2]], whole[[8, 1]])


def test_nothing_changes_when_the_rows_cannot_be_fetched(remote, monkeypatch):
    fails_with(monkeypatch, lambda data: TimeoutError("too slow"))
    model = Model()
    with pytest.raises(tw.StorageError):
        tw.warm_start(model, settings_for(remote, verify=False))
    assert bool((model.other == 0).all() and (model.words == 7).all())


def test_requests_are_made_a_bounded_number_at_a_time(remote, fetches, monkeypatch):
    monkeypatch.setattr(files, "_MAX_REQUESTS", 2)
    new = [OLD[row] for row in range(0, 50, 10)]
    table = remapped(remote, (5, COLUMNS), "table", new=new, verify=False)

    assert torch.equal(table, torch.from_numpy(TABLE[0:50:10]))
    assert fetches.calls[-3:] == [2 * ROW_BYTES, 2 * ROW_BYTES, ROW_BYTES]


def save_npy(file: Path, array: np.ndarray) -> str:
    np.save(file.with_suffix(".npy"), array)
    return file.stem


def save_npz(file: Path, array: np.ndarray) -> str:
    np.savez(file.with_suffix(".npz"), table=array)
    return "table"


def save_safetensors(file: Path, array: np.ndarray) -> str:
    save_file({"a": torch.zeros(1), "table": torch.from_numpy(array)}, f"{file}.safetensors")
    return "table"


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("save", [save_npy, save_npz, save_safetensors])
def test_of_other_formats_rows_are_fetched_too(save, verify, tmp_path, fetches):
    """Without a checksum in the file, verifying asks for nothing more."""
    key = save(tmp_path / "t", TABLE)
    url = upload(tmp_path, f"memory://{uuid.uuid4().hex}")
    (name,) = (file.name for file in tmp_path.iterdir())
    table = remapped(f"{url}/{name}", (8, COLUMNS), key, verify=verify)
    fsspec.filesystem("memory").rm(url, recursive=True)

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    fetched = sum(fetches.sizes(name))
    assert fetched > TABLE.nbytes if verify and save is save_npz else fetched < TABLE.nbytes // 4


def test_a_full_disk_is_told(remote, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(tw.StorageError, match=r"No space left on device\. Set mirror_dir"):
        tw.load_checkpoint(remote)
