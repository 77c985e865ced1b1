"""TensorFlow V2 checkpoints: what is read of them, in rows and without copies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundle_writer import (
    FULL,
    BundleEntry,
    BundleSlice,
    DType,
    write_bundle,
)
from cpu_time import cpu_seconds_below
from formats_helpers import (
    RecordingFile,
    float_entry,
    floats,
    open_bundle,
    raw,
)

from torch_warmstart.errors import (
    CorruptCheckpointError,
    SettingsError,
)
from torch_warmstart.formats.tensorflow import bundle
from torch_warmstart.storage import storage

# ---- Rows ------------------------------------------------------------------------------------


@pytest.fixture
def table(prefix: Path) -> bundle.BundleCheckpoint:
    """The numbers 0 to 23 as 6 rows of 4: whole, in a 2-D mosaic, and as strings."""
    return _table(prefix, "little")


@pytest.fixture
def big_endian_table(prefix: Path) -> bundle.BundleCheckpoint:
    return _table(prefix, "big")


def _table(prefix: Path, endianness: Any) -> bundle.BundleCheckpoint:
    full = np.arange(24, dtype="<f4").reshape(6, 4)
    boxes = [((4, 2), (3, 1)), ((0, 4), (0, 2)), ((0, 4), (2, 2)), ((4, 2), (0, 3))]
    mosaic = [
        BundleSlice([rows, cols], full[rows[0] : sum(rows), cols[0] : sum(cols)].tobytes())
        for rows, cols in boxes
    ]
    write_bundle(
        prefix,
        [
            BundleEntry("odd", DType.INT8, [1], b"\0"),
            BundleEntry("whole", DType.FLOAT, [6, 4], full.tobytes()),
            BundleEntry("mosaic", DType.FLOAT, [6, 4], slices=mosaic),
            BundleEntry("words", DType.STRING, [6, 4], [b"%d" % i for i in range(24)]),
            BundleEntry("none", DType.FLOAT, [0, 4], b""),
            BundleEntry("scalar", DType.FLOAT, [], floats(1)),
        ],
        endianness=endianness,
    )
    return open_bundle(prefix)


ROWS = [[], [0], [5], [3, 1, 4, 1, 5], [2, 2, 2], [5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("rows", ROWS, ids=str)
@pytest.mark.parametrize("key", ["whole", "mosaic"])
@pytest.mark.parametrize("kind", ["table", "big_endian_table"])
def test_rows_are_those_of_the_full_tensor(
    request: pytest.FixtureRequest, kind: str, key: str, rows: list[int]
) -> None:
    checkpoint = request.getfixturevalue(kind)
    tensor = checkpoint.get_tensor(key, torch.tensor(rows, dtype=torch.int64))

    assert tensor.shape == (len(rows), 4)
    assert tensor.tolist() == [[4 * r, 4 * r + 1, 4 * r + 2, 4 * r + 3] for r in rows]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_rows_of_strings_are_those_of_the_full_tensor(
    table: bundle.BundleCheckpoint, rows: list[int]
) -> None:
    expected = [b"%d" % (4 * r + c) for r in rows for c in range(4)]

    assert table.get_tensor("words", torch.tensor(rows, dtype=torch.int64)) == expected


@pytest.mark.parametrize(
    "dtype", [DType.HALF, DType.UINT16, DType.UINT64, DType.FLOAT8_E4M3FN, DType.COMPLEX128]
)
def test_rows_of_unusual_dtypes_are_read(prefix: Path, dtype: DType) -> None:
    width = {DType.FLOAT8_E4M3FN: 1, DType.UINT64: 8, DType.COMPLEX128: 16}.get(dtype, 2)
    data = bytes(range(6 * width))
    parts = [([(0, 1), FULL], data[: 2 * width]), ([(1, 2), FULL], data[2 * width :])]
    write_bundle(
        prefix,
        [BundleEntry("x", dtype, [3, 2], data), BundleEntry("y", dtype, [3, 2], slices=parts)],
    )
    checkpoint = open_bundle(prefix)

    expected = data[4 * width :] + data[: 2 * width]
    assert raw(checkpoint.get_tensor("x", torch.tensor([2, 0]))) == expected
    assert raw(checkpoint.get_tensor("y", torch.tensor([2, 0]))) == expected


def test_rows_of_packed_numbers_are_unpacked(prefix: Path) -> None:
    write_bundle(prefix, [BundleEntry("x", DType.INT4, [2, 2], bytes([1, 15, 8, 7]))])
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("x").tolist() == [[1, -1], [-8, 7]]
    assert checkpoint.get_tensor("x", torch.tensor([1])).tolist() == [[-8, 7]]


def test_no_rows_of_an_empty_tensor_are_an_empty_tensor(table: bundle.BundleCheckpoint) -> None:
    assert table.get_tensor("none", torch.empty(0, dtype=torch.int64)).shape == (0, 4)


@pytest.mark.parametrize(
    ("key", "rows", "message"),
    [
        ("whole", [6], "rows lie between 6 and 6, but tensor 'whole' has rows 0 to 5"),
        ("mosaic", [0, 6], "rows lie between 0 and 6, but tensor 'mosaic' has rows 0 to 5"),
        ("words", [-1], "rows lie between -1 and -1, but tensor 'words' has rows 0 to 5"),
        ("none", [0], "rows lie between 0 and 0, but tensor 'none' has no rows"),
        ("scalar", [0], "tensor 'scalar' is a scalar and has no rows"),
    ],
)
def test_rows_outside_the_tensor_are_refused(
    table: bundle.BundleCheckpoint, key: str, rows: list[int], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        table.get_tensor(key, torch.tensor(rows))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([0], dtype=torch.int32), r"not torch.int32 of shape \(1,\)"),
        (torch.tensor([True]), "not torch.bool"),
        (torch.tensor([0.0]), "not torch.float32"),
        (torch.tensor(0), r"not torch.int64 of shape \(\)"),
        (torch.tensor([[0]]), r"not torch.int64 of shape \(1, 1\)"),
    ],
    ids=["int32", "bool", "float", "scalar", "matrix"],
)
def test_rows_must_be_a_vector_of_int64(
    table: bundle.BundleCheckpoint, rows: torch.Tensor, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        table.get_tensor("whole", rows)


# ---- No copies, no needless reads ------------------------------------------------------------


def test_an_aligned_tensor_is_the_mapped_file_itself(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 1000)])
    checkpoint = open_bundle(prefix)
    first, second = checkpoint.view_tensor("x"), checkpoint.view_tensor("x")

    assert first.data_ptr() == second.data_ptr()


def test_writing_into_a_tensor_leaves_the_file_as_it_is(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 1000)])
    data_file = Path(f"{prefix}.data-00000-of-00001")
    before = data_file.read_bytes()
    checkpoint = open_bundle(prefix)
    checkpoint.get_tensor("x").fill_(-1.0)
    checkpoint.close()

    assert data_file.read_bytes() == before
    assert open_bundle(prefix).get_tensor("x")[999] == 999


def test_a_tensor_outlives_its_closed_checkpoint(prefix: Path) -> None:
    write_bundle(prefix, [float_entry("x", 5000)])
    with open_bundle(prefix) as checkpoint:
        tensor = checkpoint.get_tensor("x")
    del checkpoint

    assert tensor.sum() == 12_497_500


def _records_reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    log: list[tuple[str, int, int]] = []
    monkeypatch.setattr(storage, "LocalFile", lambda url, _: RecordingFile(url, log))
    return log


def test_opening_and_listing_reads_no_data_file(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(prefix, [float_entry("a", 4), float_entry("b", 4)])
    log = _records_reads(monkeypatch)
    checkpoint = open_bundle(prefix)
    shapes = {key: checkpoint.spec(key).shape for key in checkpoint}

    assert shapes == {"a": (4,), "b": (4,)}
    assert {name for name, _, _ in log} == {"model.ckpt.index"}


def test_one_small_tensor_of_a_huge_file_is_read_alone(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = 50 << 30
    entries = [
        float_entry("first", 4),
        float_entry("last", 3, offset=huge - 12),
        BundleEntry("all", DType.FLOAT, [huge // 4], b"", offset=0, size=huge),
    ]
    write_bundle(prefix, entries)
    data_file = f"{prefix}.data-00000-of-00001"
    os.truncate(data_file, huge)  # a hole: it takes no room on disk
    with open(data_file, "r+b") as file:
        file.seek(huge - 12)
        file.write(floats(3))
    log = _records_reads(monkeypatch)
    with cpu_seconds_below(2):
        checkpoint = open_bundle(prefix)

        assert checkpoint.get_tensor("first").tolist() == [0, 1, 2, 3]
        assert checkpoint.get_tensor("last").tolist() == [0, 1, 2]
        data_reads = [(offset, length) for name, offset, length in log if ".data-" in name]
        last = (huge - 12, 12)
        assert data_reads == [(0, 16), (0, 16), last, last]  # to check, to give
        assert checkpoint.get_tensor("all", torch.tensor([3, huge // 4 - 1])).tolist() == [3, 2]


def test_a_tensor_is_checked_once(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [([(0, 1)], floats(1)), ([(1, 2)], floats(2, 1))]
    write_bundle(prefix, [float_entry("x", 4), BundleEntry("y", DType.FLOAT, [3], slices=parts)])
    checked: list[int] = []
    original = bundle.crc32c
    monkeypatch.setattr(
        bundle, "crc32c", lambda data, crc: (checked.append(len(data)), original(data, crc))[1]
    )
    checkpoint = open_bundle(prefix)
    for _ in range(3):
        checkpoint.get_tensor("x")
        checkpoint.verify("x")
        checkpoint.get_tensor("y")
        checkpoint.verify("y")

    assert sorted(checked) == [4, 8, 16]


def test_rows_are_read_without_checking_the_whole_tensor(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(prefix, [float_entry("x", 4, crc=1)])
    checkpoint = open_bundle(prefix)

    assert checkpoint.get_tensor("x", torch.tensor([3])).tolist() == [3]
    with pytest.raises(CorruptCheckpointError, match="checksum"):
        checkpoint.verify("x")
