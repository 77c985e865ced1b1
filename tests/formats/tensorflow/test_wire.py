"""Varints, protobuf fields and checksums."""

from __future__ import annotations

import logging

import google_crc32c
import pytest
from bundle_writer import field_bytes, field_fixed32, field_varint, varint
from hypothesis import given
from hypothesis import strategies as st

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.tensorflow import wire
from torch_warmstart.formats.tensorflow.wire import BYTES, FIXED32, FIXED64, VARINT


@pytest.mark.parametrize(
    ("data", "value", "position"),
    [
        (b"\x00", 0, 1),
        (b"\x7f", 127, 1),
        (b"\x80\x01", 128, 2),
        (b"\xac\x02\xff", 300, 2),
        (b"\x80\x00", 0, 2),  # longer than needed, but allowed
        (b"\xff" * 9 + b"\x01", (1 << 64) - 1, 10),
    ],
)
def test_a_varint_is_read(data: bytes, value: int, position: int) -> None:
    assert wire.read_varint(data, 0) == (value, position)


@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=3))
def test_every_64_bit_number_comes_back(value: int, before: bytes) -> None:
    encoded = before + varint(value)

    assert wire.read_varint(encoded, len(before)) == (value, len(encoded))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "runs past the end of its 0 bytes"),
        (b"\x80", "runs past the end of its 1 bytes"),
        (b"\xff" * 9, "runs past the end of its 9 bytes"),
        (b"\xff" * 9 + b"\x02", "longer than 64 bits"),
        (b"\x80" * 10 + b"\x01", "longer than 64 bits"),
        (b"\xff" * 1_000_000, "longer than 64 bits"),
    ],
    ids=["empty", "cut", "cut late", "65 bits", "71 bits", "a megabyte"],
)
def test_a_varint_that_does_not_end_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        wire.read_varint(data, 0)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (5, 5), ((1 << 63) - 1, (1 << 63) - 1), (1 << 63, -(1 << 63)), ((1 << 64) - 1, -1)],
)
def test_large_varints_are_negative_numbers(value: int, expected: int) -> None:
    assert wire.signed(value) == expected


def test_fields_of_every_wire_type_are_walked() -> None:
    message = field_varint(1, 300) + field_bytes(2, b"hi") + field_fixed32(3, 7)
    message += b"\x21" + bytes(range(8))  # field 4, fixed64

    assert list(wire.walk_fields(message)) == [
        (1, VARINT, 300),
        (2, BYTES, b"hi"),
        (3, FIXED32, 7),
        (4, FIXED64, 0x0706050403020100),
    ]


@pytest.mark.parametrize(
    ("message", "fact"),
    [
        (b"\x0a\x02a", "field 1 claims 2 bytes, 1 are left"),
        (b"\x0a" + varint(1 << 63), "field 1 claims 9223372036854775808 bytes, 0 are left"),
        (b"\x0d\x00\x00", "field 1 claims 4 bytes, 2 are left"),
        (b"\x09" + bytes(7), "field 1 claims 8 bytes, 7 are left"),
        (b"\x0b", "wire type 3 in field 1"),
        (b"\x0c", "wire type 4 in field 1"),
        (b"\x0f", "wire type 7 in field 1"),
        (b"\x00\x00", "field number 0"),
        (b"\x08", "a varint runs past the end"),
    ],
)
def test_a_damaged_message_is_refused(message: bytes, fact: str) -> None:
    with pytest.raises(MalformedError, match=fact):
        list(wire.walk_fields(message))


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_wire_error(message: bytes) -> None:
    try:
        fields = list(wire.walk_fields(message))
    except MalformedError:
        return
    assert len(fields) <= len(message) // 2


def test_only_the_fields_asked_for_are_kept() -> None:
    message = field_varint(1, 5) + field_bytes(2, b"no") + field_varint(1, 6)
    fields = wire.read_fields(message, {1: VARINT, 7: BYTES})

    assert fields == {1: [5, 6]}
    assert wire.last_int(fields, 1) == 6
    assert wire.last_int(fields, 9) == 0
    assert wire.last_bytes(fields, 7) is None
    assert wire.all_bytes(fields, 7) == []


def test_a_known_field_of_another_wire_type_is_refused() -> None:
    with pytest.raises(MalformedError, match="field 1 has wire type 2 instead of 0"):
        wire.read_fields(field_bytes(1, b""), {1: VARINT})


def test_text_survives_bytes_that_are_no_utf8() -> None:
    assert wire.decode_text(b"caf\xc3\xa9") == "café"
    assert wire.decode_text(b"caf\xe9").encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_checksums_are_those_of_the_format() -> None:
    assert wire.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert wire.crc32c(b"56789", wire.crc32c(b"1234")) == 0xE3069283
    assert wire.masked_crc(b"") == 0xA282EAD8
    assert wire.mask_crc(0xFFFFFFFF) == 0xA282EAD7


def test_a_slow_checksum_library_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(google_crc32c, "implementation", "python")
    wire._warn_if_crc_is_slow.cache_clear()
    with caplog.at_level(logging.WARNING):
        wire.crc32c(b"a")
        wire.crc32c(b"b")
    wire._warn_if_crc_is_slow.cache_clear()

    assert [record.message for record in caplog.records if "google-crc32c" in record.message] == [
        "google-crc32c runs its pure Python fallback on this machine: verifying a checkpoint is "
        "some hundred times slower. Install its binary wheel, or pass verify=False."
    ]
