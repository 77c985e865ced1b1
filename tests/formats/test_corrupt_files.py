"""Damaged checkpoints: right values or an error of ours, never anything else, and never at length.

Two kinds of damage. Accidents leave checksums behind that no longer match, so they must be found
whatever byte they hit. Malice writes checksums that match, so every decoder must hold by itself.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_writer import (
    FULL,
    BundleEntry,
    BundleSlice,
    DType,
    build_bundle,
    encode_block,
    encode_tensor_name_slice,
    field_bytes,
    footer,
    masked_crc32c,
    sealed_block,
    varint,
    write_bundle,
    write_files,
)
from cpu_time import cpu_seconds_below
from formats_helpers import FIXTURES, float_entry, floats, open_bundle, raw
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torch_warmstart.errors import CorruptCheckpointError, WarmStartError
from torch_warmstart.formats import OBJECT_GRAPH_KEY

Values = dict[str, Any]  # key -> bytes of a tensor, list of strings, or None where it was refused
Record = tuple[bytes, bytes]

MASKS = [0x01, 0x80]
ATTRIBUTE = field_bytes(2, b"w") + field_bytes(3, b"weights")  # full name and key
GRAPH = field_bytes(1, field_bytes(2, ATTRIBUTE))

ROWS = [BundleSlice([(0, 1), FULL], b"abcdef"), BundleSlice([(1, 1), FULL], b"ghijkl")]
MOSAIC = [
    BundleSlice([(0, 1), (0, 1)], b"\x01"),
    BundleSlice([(0, 1), (1, 1)], b"\x02"),
    BundleSlice([(1, 1), (0, 2)], b"\x03\x04"),
]
ENTRIES = [
    BundleEntry("cut", DType.HALF, [2, 3], slices=ROWS),
    BundleEntry("flag", DType.BOOL, [3], b"\x01\x00\x01"),
    BundleEntry("mosaic", DType.INT8, [2, 2], slices=MOSAIC),
    BundleEntry("none", DType.FLOAT, [0, 2], b""),
    BundleEntry("scalar", DType.INT64, [], struct.pack("<q", -5)),
    BundleEntry("strings", DType.STRING, [3], [b"", b"hello", b"\xff" * 9]),
    BundleEntry(OBJECT_GRAPH_KEY, DType.STRING, [], [GRAPH]),
    float_entry("weights", 2, 3),
]

LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "snappy": {"compression": "snappy"},
    "blocks": {"block_size": 60, "restart_interval": 2},
    "snappy blocks": {"compression": "snappy", "block_size": 200},
    "big-endian": {"endianness": "big"},
}


def read_everything(prefix: Path, *, verify: bool = True) -> Values | None:
    """Does to a checkpoint all that can be done; None if it cannot be opened or listed.

    Any exception that is not of ours comes out.
    """
    try:
        checkpoint = open_bundle(prefix, verify=verify)
        keys = list(checkpoint)
    except WarmStartError:
        return None
    values: Values = dict.fromkeys(keys)
    for key in keys:
        with suppress(WarmStartError):
            spec = checkpoint.spec(key)
            if spec.shape and spec.shape[0]:
                checkpoint.get_tensor(key, torch.tensor([spec.shape[0] - 1, 0]))
            value = checkpoint.get_tensor(key)
            values[key] = value if isinstance(value, list) else raw(value)
    with suppress(WarmStartError):
        checkpoint.full_names()
    return values


def check_never_wrong(prefix: Path, good: Values) -> int:
    """Whatever can still be read is what was written, as long as checksums are looked at.

    Returns the number of tensors that were refused.
    """
    values = read_everything(prefix)
    if values is None:
        return len(good)
    assert values.keys() == good.keys()
    assert all(value in (None, good[key]) for key, value in values.items())
    return list(values.values()).count(None)


def files_of(prefix: Path) -> list[Path]:
    return [Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001")]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    return tmp_path / "m"


@pytest.fixture
def good(prefix: Path, request: pytest.FixtureRequest) -> Values:
    """The values of a checkpoint of the asked layout, after it was written to `prefix`."""
    write_bundle(prefix, ENTRIES, **LAYOUTS[request.param])
    values = read_everything(prefix)
    assert values is not None
    assert None not in values.values()
    assert open_bundle(prefix).full_names() == {"w": ("weights",)}
    return values


each_file = pytest.mark.parametrize(
    ("good", "which"),
    [*((layout, 0) for layout in LAYOUTS), ("plain", 1), ("big-endian", 1)],
    indirect=["good"],
    ids=lambda value: ("index", "data")[value] if isinstance(value, int) else value,
)


# ---- Accidents -------------------------------------------------------------------------------


@each_file
def test_a_flipped_byte_anywhere_is_found_or_harmless(
    prefix: Path, good: Values, which: int
) -> None:
    path = files_of(prefix)[which]
    data = path.read_bytes()
    for at in range(len(data)):
        for mask in MASKS:
            path.write_bytes(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :])
            refused = check_never_wrong(prefix, good)
            if which == 1:
                assert refused == 1  # every byte of the data belongs to one tensor
                check_bounded(prefix, len(data))


@each_file
def test_a_file_cut_off_anywhere_is_found(prefix: Path, good: Values, which: int) -> None:
    path = files_of(prefix)[which]
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        check_bounded(prefix, len(data))
        refused = check_never_wrong(prefix, good)
        assert refused == len(good) if which == 0 else refused > 0


@each_file
def test_bytes_in_front_or_behind_are_found_or_harmless(
    prefix: Path, good: Values, which: int
) -> None:
    path = files_of(prefix)[which]
    data = path.read_bytes()
    for damaged in (b"\0" + data, data + b"\0", data + data, b"", bytes(len(data))):
        path.write_bytes(damaged)
        check_never_wrong(prefix, good)


@pytest.mark.parametrize("folder", ["dtypes", "slices"])
def test_a_flipped_byte_of_a_golden_index_is_found_or_harmless(prefix: Path, folder: str) -> None:
    for file in (FIXTURES / folder).glob("model.ckpt.*"):
        Path(str(prefix) + file.name.removeprefix("model.ckpt")).write_bytes(file.read_bytes())
    good = read_everything(prefix)
    assert good is not None
    path = files_of(prefix)[0]
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x04]) + data[at + 1 :])
        values = read_everything(prefix)
        assert values is None or values == good


def test_data_files_may_go_missing(prefix: Path) -> None:
    write_bundle(prefix, ENTRIES)
    os.remove(files_of(prefix)[1])

    values = read_everything(prefix)
    assert values is not None
    assert set(values.values()) == {None}


# ---- Malice: the checksums of the index match ------------------------------------------------


def write_sealed(prefix: Path, contents: bytes, data: Sequence[bytes]) -> None:
    """Writes an index whose only data block has these contents and a right checksum."""
    block = sealed_block(contents)
    index = encode_block([(b"\xff" * 9, varint(0) + varint(len(contents)))])
    at = len(block)
    write_files(prefix, block + sealed_block(index) + footer((0, 0), (at, len(index))), data)


def check_bounded(prefix: Path, present: int) -> None:
    """Nothing that was read is larger than the files that it was read from."""
    for value in (read_everything(prefix, verify=False) or {}).values():
        if value is not None:
            assert len(value) <= present


@pytest.mark.parametrize("mask", [0x08, 0x80])
def test_a_changed_index_with_right_checksums_is_read_or_refused(prefix: Path, mask: int) -> None:
    records, shards = build_bundle(ENTRIES)
    contents = encode_block(sorted(records.items()))
    for at in range(len(contents)):
        changed = contents[:at] + bytes([contents[at] ^ mask]) + contents[at + 1 :]
        write_sealed(prefix, changed, shards)
        check_bounded(prefix, len(shards[0]))


def test_a_shortened_index_with_right_checksums_is_read_or_refused(prefix: Path) -> None:
    records, shards = build_bundle(ENTRIES)
    contents = encode_block(sorted(records.items()))
    for length in range(len(contents)):
        write_sealed(prefix, contents[:length], shards)
        check_bounded(prefix, len(shards[0]))


VALUES = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([varint(1 << 31), varint(1 << 40), varint(1 << 62), varint(-1), varint(-8)]),
)


@given(
    edits=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 60), st.integers(0, 3), VALUES),
        min_size=1,
        max_size=4,
    )
)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_edited_records_with_right_checksums_are_read_or_refused(
    prefix: Path, edits: list[tuple[int, int, int, bytes]]
) -> None:
    records, shards = build_bundle(ENTRIES)
    changed: list[Record] = sorted(records.items())
    for which, at, removed, inserted in edits:
        key, value = changed[which % len(changed)]
        start = at % (len(value) + 1)
        edited = value[:start] + inserted + value[start + removed :]
        changed[which % len(changed)] = (key, edited)
    write_sealed(prefix, encode_block(changed), shards)
    check_bounded(prefix, len(shards[0]))


@given(contents=st.binary(max_size=60), count=st.integers(0, 20))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_strings_of_any_bytes_are_read_or_refused(
    prefix: Path, contents: bytes, count: int
) -> None:
    write_bundle(prefix, [BundleEntry("s", DType.STRING, [count], contents)])
    check_bounded(prefix, len(contents))


# ---- Malice: tensors larger than their files -------------------------------------------------


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 31, 1 << 31], [1 << 62], [(1 << 63) - 1]])
@pytest.mark.parametrize("dtype", [DType.FLOAT, DType.INT8, DType.STRING, DType.COMPLEX128])
def test_shapes_beyond_the_file_are_refused_at_once(
    prefix: Path, dtype: int, dims: list[int]
) -> None:
    data = [b""] if dtype == DType.STRING else bytes(16)
    numel = int(torch.tensor(dims, dtype=torch.float64).prod())
    for size in (None, 16, numel & ((1 << 63) - 1)):
        write_bundle(prefix, [BundleEntry("x", dtype, [1], data, shape_dims=dims, size=size)])
        with cpu_seconds_below(1), pytest.raises(CorruptCheckpointError):
            open_bundle(prefix, verify=False).get_tensor("x")


def test_a_tensor_that_claims_the_size_it_would_need_is_refused(prefix: Path) -> None:
    lie = float_entry("x", 2, shape_dims=[1 << 40], size=4 << 40)
    write_bundle(prefix, [lie])

    with pytest.raises(
        CorruptCheckpointError, match="4,398,046,511,104 bytes at offset 0 are need"
    ):
        open_bundle(prefix).get_tensor("x")


def test_slices_of_slices_are_not_followed(prefix: Path) -> None:
    """A slice that lists itself as its own slice must not send the reader round in circles."""
    records, shards = build_bundle(
        [BundleEntry("x", DType.INT8, [2], slices=[([(0, 1)], b"a"), ([(1, 1)], b"b")])]
    )
    for start in (0, 1):
        records[encode_tensor_name_slice("x", [(start, 1)])] = records[b"x"]
    write_sealed(prefix, encode_block(sorted(records.items())), shards)

    with pytest.raises(CorruptCheckpointError, match="it has 0 bytes, but shape"):
        open_bundle(prefix).get_tensor("x")


def test_a_mosaic_of_many_slices_takes_no_longer_than_its_size_warrants(prefix: Path) -> None:
    side = 40
    parts = [
        BundleSlice([(i, 1), (j, 1)], floats(1, side * i + j))
        for i in range(side)
        for j in range(side)
    ]
    write_bundle(prefix, [BundleEntry("x", DType.FLOAT, [side, side], slices=parts)])
    with cpu_seconds_below(2):
        tensor = open_bundle(prefix).get_tensor("x")

    assert tensor.flatten().tolist() == list(range(side * side))


def test_a_slice_listed_thousands_of_times_is_refused(prefix: Path) -> None:
    parts = [BundleSlice([(0, 4)], floats(4))] * 5_000
    records, shards = build_bundle([BundleEntry("x", DType.FLOAT, [20_000], slices=parts)])
    write_sealed(prefix, encode_block(sorted(records.items())), [shards[0][:16]])

    with cpu_seconds_below(5), pytest.raises(CorruptCheckpointError, match="is listed twice"):
        open_bundle(prefix, verify=False).get_tensor("x")


def test_the_checksums_of_the_test_writer_are_those_of_the_format() -> None:
    assert masked_crc32c(b"") == 0xA282EAD8
