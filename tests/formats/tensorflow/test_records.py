"""Entries of a bundle: however their fields are put together, they mean what protobuf says."""

from __future__ import annotations

import pytest
from bundle_writer import field_bytes, field_fixed32, field_varint, varint
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.tensorflow.dtypes import STORED_TYPES
from torch_warmstart.formats.tensorflow.records import Entry, decode_entry

Field = tuple[int, int | list[int]]  # number, value; of the shape its sizes

NUMBERS = st.one_of(
    st.integers(0, 300), st.integers(0, (1 << 63) - 1), st.just((1 << 63) - 1), st.just(1 << 55)
)
FIELDS = st.one_of(
    st.tuples(st.just(1), st.sampled_from([1, 3, 7, 9, 14])),
    st.tuples(st.just(2), st.lists(st.integers(0, 300), max_size=6)),
    st.tuples(st.sampled_from([3, 4, 5]), NUMBERS),
    st.tuples(st.just(6), st.integers(0, (1 << 32) - 1)),
    st.tuples(st.just(15), NUMBERS),  # of a later TensorFlow
)


def encode(field: Field) -> bytes:
    number, value = field
    if isinstance(value, list):
        return field_bytes(2, b"".join(field_bytes(2, field_varint(1, size)) for size in value))
    return field_fixed32(6, value) if number == 6 else field_varint(number, value)


def usual_fields(
    dtype: int, shape: list[int], shard: int, offset: int, size: int, crc: int
) -> list[Field]:
    """As TensorFlow writes them: in order, zeros left out."""
    place = [(3, shard), (4, offset), (5, size), (6, crc)]
    return [(1, dtype), (2, shape), *((number, value) for number, value in place if value)]


def check(fields: list[Field]) -> None:
    last = {1: 0, 2: [], 3: 0, 4: 0, 5: 0, 6: 0, **dict(fields)}
    data = b"".join(map(encode, fields))
    if last[1] not in STORED_TYPES:
        with pytest.raises(MalformedError, match="unknown dtype number 0"):
            decode_entry(data)
        return
    stored, shape = STORED_TYPES[last[1]], tuple(last[2])
    assert decode_entry(data) == Entry(stored, shape, last[3], last[4], last[5], last[6], ())


@given(
    st.builds(
        usual_fields,
        st.sampled_from([1, 3, 7, 9, 14]),
        st.lists(st.one_of(st.integers(0, 300), st.just(1 << 20)), max_size=40),
        *[NUMBERS] * 3,
        st.integers(0, (1 << 32) - 1),
    )
)
def test_fields_as_tensorflow_writes_them_are_decoded(fields: list[Field]) -> None:
    if _fits(fields):
        check(fields)


@given(st.lists(FIELDS, max_size=9))
def test_fields_in_any_order_and_number_are_decoded(fields: list[Field]) -> None:
    if _fits(fields):
        check(fields)


def _fits(fields: list[Field]) -> bool:
    """Whether every shape has a number of elements that 64 bits hold; others are refused."""
    count = 1
    for size in (size for _, value in fields if isinstance(value, list) for size in value):
        count *= size or 1
    return count < 1 << 63


@pytest.mark.parametrize(
    "data",
    [
        encode((1, 1)) + encode((2, [2, 3])) + encode((5, 24)) + field_fixed32(6, 7)[:-1],
        encode((1, 1)) + encode((2, [2, 3]))[:-1],
        b"\x08\x01\x12\xff\x35abcd",  # a shape longer than its entry
        b"\x08\x01\x12\x02\x12\x05\x35abcd",  # a dimension longer than its shape
        b"\x08\x01\x12\x00\x20" + b"\x80" * 10 + b"\x01\x35abcd",
        b"\x08\x01\x12\x00\x35abc",
        b"\x0d\x01\x12\x00\x35abcd",
    ],
    ids=["checksum", "shape", "long shape", "dimension", "offset", "cut", "wire type"],
)
def test_an_entry_that_is_cut_or_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_entry(data)


def test_a_dtype_of_two_bytes_is_not_taken_for_one() -> None:
    # 0x80 0x12 is one number, of which the second byte looks like the tag of a shape.
    with pytest.raises(MalformedError, match="unknown dtype number 2304"):
        decode_entry(b"\x08\x80\x12" + encode((5, 0)) + field_fixed32(6, 1))


def test_a_negative_offset_stays_negative() -> None:
    entry = decode_entry(b"\x08\x01\x12\x00\x20" + varint((1 << 64) - 4) + field_fixed32(6, 1))

    assert entry.offset == -4
