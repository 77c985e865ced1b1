"""Looks at the bytes of entries that spare a longer one: they may say yes too often, never no."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from torch_warmstart.entries import Entries, entries_of_bytes

ODD = "é".encode()


def _lines(values: list[bytes]) -> Entries:
    data = b"\n".join([*values, b""])
    lengths = torch.tensor([0, *(len(value) + 1 for value in values)])
    text = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return Entries("lines", "line", text, lengths.cumsum(0), gap=1)


FORMS = {
    "lines": _lines,
    "packed": lambda values: entries_of_bytes(values, "entries"),
    "turned": lambda values: _lines(values[::-1]).take(torch.arange(len(values)).flip(0)),
    "sliced": lambda values: _lines([b"x", *values, b"x"]).slice(1, 1 + len(values)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", range(3))
def test_what_is_there_is_seen(form: str, at: int) -> None:
    values = [b"a", b"bc", b"d"]
    plain = FORMS[form](values)
    assert plain.is_ascii
    assert not plain.may_have([b"##", ODD])
    values[at] += ODD + b"##"
    odd = FORMS[form](values)
    assert not odd.is_ascii
    assert odd.may_have([b"none", b"##"])
    assert odd.may_have([ODD])
    assert odd.values(slice(None)) == values


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", range(3))
def test_what_is_no_utf8_is_seen(form: str, at: int) -> None:
    values = [b"a", ODD * 3, b"d"]
    assert FORMS[form](values).is_utf8
    values[at] += ODD[:1]
    assert not FORMS[form](values).is_utf8


@pytest.mark.parametrize("form", FORMS)
def test_a_character_that_two_entries_share_is_in_neither(form: str) -> None:
    assert not FORMS[form]([b"a", ODD[:1], ODD[1:]]).is_utf8


def test_a_character_between_two_blocks_is_utf8() -> None:
    long = b"a" * ((1 << 20) - 1) + ODD
    assert _lines([long, b"b"]).is_utf8
    assert not _lines([long[:-1], b"b"]).is_utf8


def test_none_has_nothing() -> None:
    nothing = _lines([b"a"]).slice(0, 0)
    assert nothing.is_ascii
    assert nothing.is_utf8
    assert not nothing.may_have([b"a"])


def test_of_much_text_nobody_says_no() -> None:
    many = _lines([b"a" * 1023] * 2048)
    assert many.is_ascii
    assert many.may_have([b"b"])


@pytest.mark.parametrize("order", [[2, 0], [0, 2], [1], []], ids=str)
def test_entries_far_from_each_other_are_packed(order: list[int]) -> None:
    values = [b"a", b"b" * 5000, b"cd"]
    taken = _lines(values).take(torch.tensor(order, dtype=torch.int64))
    data, lengths = replace(taken).packed(slice(None))
    assert data.numpy().tobytes() == b"".join(values[at] for at in order)
    assert lengths.tolist() == [len(values[at]) for at in order]
