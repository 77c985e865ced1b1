"""Tensors kept in slices: their names in the index, how they are put together, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
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
    build_bundle,
    encode_tensor_name_slice,
    write_bundle,
    write_files,
    write_table,
)
from formats_helpers import float_entry, floats, open_bundle, raw
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.computing.boxes import Box
from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats import slices
from torch_warmstart.formats.base import MalformedError

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


# ---- Names of slices -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "extents", "code"),
    [
        (b"part", [(0, 2), FULL], "00 70617274 0001 0102 8082 807f"),
        (b"w", [(0, 4), (130, 70)], "00 77 0001 0102 8084 c082 c046"),
        (b"nm\xff\x00z", [(64, 10000)], "00 6e6d ff00 00ff 7a 0001 0101 c040 e02710"),
        (b"s", [], "00 73 0001 00"),
        (b"", [(0, 0)], "00 0001 0101 80 80"),
        (b"a", [(63, -1), (-64, -65)], "00 61 0001 0102 bf7f 40 3fbf"),
        (b"a", [(8191, 8192)], "00 61 0001 0101 dfff e02000"),
    ],
)
def test_a_slice_is_filed_under_the_name_tensorflow_gives_it(
    name: bytes, extents: list[slices.Extent], code: str
) -> None:
    assert slices.encode_slice_key(name, extents) == bytes.fromhex(code)


@given(st.binary(max_size=20), st.lists(st.tuples(INT64, INT64), max_size=4))
def test_names_of_slices_agree_with_the_independent_writer(
    name: bytes, extents: list[slices.Extent]
) -> None:
    assert slices.encode_slice_key(name, extents) == encode_tensor_name_slice(name, extents)


@given(INT64, INT64)
def test_codes_of_numbers_sort_as_the_numbers_do(a: int, b: int) -> None:
    codes = [slices.encode_slice_key(b"x", [(number, 0)]) for number in sorted({a, b})]

    assert codes == sorted(codes)


# ---- Boxes -----------------------------------------------------------------------------------


def test_a_full_extent_takes_the_size_of_its_dimension() -> None:
    box = slices.resolve_box([FULL, (1, 2)], (5, 3))

    assert (box.offsets, box.sizes, box.numel) == ((0, 1), (5, 2), 10)


@pytest.mark.parametrize(
    ("extents", "message"),
    [
        ([(0, 1)], "a slice of rank 1 in a tensor of rank 2"),
        ([(-1, 2), FULL], "slice -1,2 lies outside a dimension of 5"),
        ([(4, 2), FULL], "slice 4,2 lies outside a dimension of 5"),
        ([(6, 0), FULL], "slice 6,0 lies outside a dimension of 5"),
        ([(0, -2), FULL], "slice 0,-2 lies outside a dimension of 5"),
        ([(1, -1), FULL], "slice 1,5 lies outside a dimension of 5"),
        ([(1 << 62, 1 << 62), FULL], "lies outside a dimension of 5"),
    ],
)
def test_a_slice_that_sticks_out_is_refused(extents: Sequence[slices.Extent], message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        slices.resolve_box(extents, (5, 3))


def boxes(*pairs: tuple[tuple[int, ...], tuple[int, ...]]) -> list[Box]:
    return [Box(offsets, sizes) for offsets, sizes in pairs]


@pytest.mark.parametrize(
    ("cover", "shape"),
    [
        (boxes(((0,), (2,)), ((2,), (3,))), (5,)),
        (boxes(((2,), (3,)), ((0,), (2,))), (5,)),
        (boxes(((0,), (2,)), ((2,), (0,)), ((2,), (3,))), (5,)),
        (boxes(((0, 0), (1, 2)), ((0, 2), (2, 1)), ((1, 0), (1, 2))), (2, 3)),
        (boxes(((), ())), ()),
        (boxes(((0, 0), (0, 4))), (0, 4)),
        (boxes(), (0, 4)),
    ],
    ids=str,
)
def test_boxes_that_cover_a_tensor_once_are_accepted(
    cover: list[Box], shape: tuple[int, ...]
) -> None:
    slices.check_cover(cover, shape)


@pytest.mark.parametrize(
    ("cover", "shape", "message"),
    [
        (boxes(((0,), (2,))), (5,), "its slices hold 2 elements of 5"),
        (boxes(((0,), (5,)), ((0,), (5,))), (5,), "its slices hold 10 elements of 5"),
        (boxes(((0,), (3,)), ((2,), (2,))), (5,), "overlap in dimension 0 at 2"),
        (boxes(((0, 0), (2, 2)), ((0, 1), (2, 1))), (2, 3), "overlap in dimension 1 at 1"),
        (
            boxes(((0, 0), (1, 2)), ((0, 1), (2, 1)), ((1, 0), (1, 2))),
            (2, 3),
            r"overlap at \(0, 1\)",
        ),
    ],
    ids=str,
)
def test_boxes_that_overlap_or_leave_gaps_are_refused(
    cover: list[Box], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(MalformedError, match=message):
        slices.check_cover(cover, shape)


# ---- Sliced tensors --------------------------------------------------------------------------

FULL_TENSOR = np.arange(24, dtype="<f4").reshape(4, 6)


def cut(rows: slices.Extent, columns: slices.Extent, **lies: Any) -> BundleSlice:
    """A slice of FULL_TENSOR."""
    data = FULL_TENSOR[rows[0] : sum(rows), columns[0] : sum(columns)].tobytes()
    return BundleSlice([rows, columns], data, **lies)


def read_cut(prefix: Path, *parts: BundleSlice, shape: Sequence[int] = (4, 6)) -> torch.Tensor:
    write_bundle(prefix, [BundleEntry("x", DType.FLOAT, shape, slices=parts)], num_shards=3)
    tensor = open_bundle(prefix).get_tensor("x")
    assert isinstance(tensor, torch.Tensor)
    return tensor


@pytest.mark.parametrize(
    "parts",
    [
        [cut((0, 1), (0, 6)), cut((1, 3), (0, 6))],
        [cut((1, 3), (0, 6)), cut((0, 1), (0, 6))],
        [cut((0, 4), (0, 2)), cut((0, 4), (2, 4))],
        [
            cut((0, 2), (0, 5)),
            cut((0, 3), (5, 1)),
            cut((3, 1), (1, 5)),
            cut((2, 1), (0, 5)),
            cut((3, 1), (0, 1)),
        ],
        [cut((0, 2), (0, 6), shard=2), cut((2, 1), (0, 6), shard=0), cut((3, 1), (0, 6), shard=1)],
        [BundleSlice([FULL, (0, 2)], FULL_TENSOR[:, :2].tobytes()), cut((0, 4), (2, 4))],
        [BundleSlice([FULL, FULL], FULL_TENSOR.tobytes())],
    ],
    ids=["rows", "rows, shuffled", "columns", "mosaic", "three files", "mixed fulls", "one"],
)
def test_slices_are_put_together(prefix: Path, parts: list[BundleSlice]) -> None:
    assert read_cut(prefix, *parts).tolist() == FULL_TENSOR.tolist()


def test_an_empty_slice_among_others_does_no_harm(prefix: Path) -> None:
    parts = [cut((0, 2), (0, 6)), cut((2, 0), (0, 6)), cut((2, 2), (0, 6))]

    assert read_cut(prefix, *parts).tolist() == FULL_TENSOR.tolist()


def test_a_scalar_in_one_slice_is_read(prefix: Path) -> None:
    assert read_cut(prefix, BundleSlice([], floats(1, 7)), shape=()).item() == 7


def test_an_empty_tensor_in_slices_is_read(prefix: Path) -> None:
    assert read_cut(prefix, BundleSlice([(0, 0), (0, 6)], b""), shape=(0, 6)).shape == (0, 6)


@pytest.mark.parametrize("width", [1, 2, 8, 16])
def test_slices_of_types_tensorflow_cannot_join_are_joined(prefix: Path, width: int) -> None:
    dtype = {1: DType.FLOAT8_E5M2, 2: DType.HALF, 8: DType.UINT64, 16: DType.COMPLEX128}[width]
    data = bytes(range(6 * width))
    parts = [([(2, 4)], data[2 * width :]), ([(0, 2)], data[: 2 * width])]
    write_bundle(prefix, [BundleEntry("x", dtype, [6], slices=parts)])

    assert raw(open_bundle(prefix).get_tensor("x")) == data


def test_slices_are_not_listed_as_tensors(prefix: Path) -> None:
    parts = [cut((0, 1), (0, 6)), cut((1, 3), (0, 6))]
    names = ["w", "odd\0name", "\0first"]
    write_bundle(prefix, [BundleEntry(name, DType.FLOAT, [4, 6], slices=parts) for name in names])
    checkpoint = open_bundle(prefix)

    assert list(checkpoint) == ["\0first", "odd\0name", "w"]
    for name in names:
        assert checkpoint.get_tensor(name).tolist() == FULL_TENSOR.tolist()


def test_a_slice_nobody_lists_is_listed_as_a_tensor_as_tensorflow_does(prefix: Path) -> None:
    records, shards = build_bundle([float_entry("x", 2)])
    orphan = encode_tensor_name_slice("gone", [(0, 2)])
    records[orphan] = records[b"x"]
    write_files(prefix, write_table(sorted(records.items())), shards)
    checkpoint = open_bundle(prefix)

    assert list(checkpoint) == [orphan.decode("utf-8", "surrogateescape"), "x"]
    assert checkpoint.get_tensor(next(iter(checkpoint))).tolist() == [0, 1]


LEFT = cut((0, 4), (0, 3))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([LEFT], "its slices hold 12 elements of 24"),
        ([LEFT, cut((0, 4), (2, 3))], "its slices overlap in dimension 1 at 2"),
        ([LEFT, LEFT], "its slices claim 96 bytes, its data files hold|overlap"),
        ([LEFT, cut((0, 4), (3, 2)), cut((0, 2), (5, 1))], "hold 22 elements of 24"),
        ([LEFT, BundleSlice([(0, 4), (3, 4)], floats(16))], "slice 3,4 lies outside"),
        ([LEFT, BundleSlice([(0, 4), (-1, 3)], floats(12))], "slice -1,3 lies outside"),
        ([LEFT, BundleSlice([(0, 4)], floats(4))], "rank 1 in a tensor of rank 2"),
        ([LEFT, cut((0, 4), (3, 3), dtype=DType.INT32)], r"its slice .* is of type int32"),
        ([LEFT, cut((0, 4), (3, 3), shape_dims=[3, 4])], r"its slice at .* has shape \(3, 4\)"),
        ([LEFT, cut((0, 4), (3, 3), shape_dims=[12])], r"its slice at .* has shape \(12,\)"),
        ([LEFT, cut((0, 4), (3, 3), crc=5)], "its checksum is 0x00000005 in the index"),
        ([LEFT, cut((0, 4), (3, 3), size=44)], r"it has 44 bytes, but shape \[4, 3\] of float"),
        ([LEFT, cut((0, 4), (3, 3), shard_id=7)], "it names data file 7 of 3"),
        ([LEFT, cut((0, 4), (3, 3), offset=56)], "needed, but the file has 96 bytes"),
    ],
    ids=[
        "missing",
        "overlap",
        "twice",
        "gap",
        "sticks out",
        "negative",
        "rank",
        "dtype",
        "shape",
        "rank of the data",
        "crc",
        "size",
        "shard",
        "offset",
    ],
)
def test_slices_that_lie_are_refused(prefix: Path, parts: list[BundleSlice], message: str) -> None:
    with pytest.raises(CorruptCheckpointError, match=message):
        read_cut(prefix, *parts)


@pytest.mark.parametrize("rows", [None, torch.tensor([0])], ids=["whole", "rows"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_slice_that_is_not_in_the_index_is_missed(
    prefix: Path, verify: bool, rows: torch.Tensor | None
) -> None:
    records, shards = build_bundle(
        [BundleEntry("x", DType.FLOAT, [4, 6], slices=[LEFT, cut((0, 4), (3, 3))])]
    )
    del records[encode_tensor_name_slice("x", [(0, 4), (3, 3)])]
    write_files(prefix, write_table(sorted(records.items())), shards)
    checkpoint = open_bundle(prefix, verify=verify)

    message = r"tensor 'x' is damaged: its slice \(\(0, 4\), \(3, 3\)\) is not in the index"
    with pytest.raises(CorruptCheckpointError, match=message):
        checkpoint.get_tensor("x", rows)


@pytest.mark.parametrize("verify", [True, False])
def test_slices_that_share_bytes_cannot_claim_more_than_the_files_hold(
    prefix: Path, verify: bool
) -> None:
    parts = [BundleSlice([(100 * i, 100)], floats(100), offset=0) for i in range(50)]
    records, shards = build_bundle([BundleEntry("x", DType.FLOAT, [5000], slices=parts)])
    write_files(prefix, write_table(sorted(records.items())), [shards[0][:400]])

    with pytest.raises(
        CorruptCheckpointError, match="its slices claim 20,000 bytes, its data files hold 400"
    ):
        open_bundle(prefix, verify=verify).get_tensor("x")


@pytest.mark.parametrize("rows", [None, torch.tensor([0])], ids=["whole", "rows"])
@pytest.mark.parametrize("verify", [True, False])
def test_slices_without_bytes_cannot_claim_terabytes(
    prefix: Path, verify: bool, rows: torch.Tensor | None
) -> None:
    half = 1 << 40
    parts = [BundleSlice([(0, 2), (i * half, half)], b"") for i in range(2)]
    write_bundle(prefix, [BundleEntry("x", DType.FLOAT, [2, 2 * half], slices=parts)])

    with pytest.raises(CorruptCheckpointError, match="it has 0 bytes, but shape"):
        open_bundle(prefix, verify=verify).get_tensor("x", rows)


def test_strings_in_slices_are_refused(prefix: Path) -> None:
    parts = [BundleSlice([(0, 1)], [b"a"]), BundleSlice([(1, 1)], [b"b"])]
    write_bundle(prefix, [BundleEntry("s", DType.STRING, [2], slices=parts)])

    with pytest.raises(CorruptCheckpointError, match="strings kept in slices"):
        open_bundle(prefix).get_tensor("s")


def test_three_thousand_slices_are_put_together_quickly(prefix: Path) -> None:
    count = 3_000
    parts = [BundleSlice([(i, 1)], floats(1, i)) for i in range(count)]
    write_bundle(prefix, [BundleEntry("x", DType.FLOAT, [count], slices=parts)])

    assert open_bundle(prefix).get_tensor("x").tolist() == list(range(count))
