"""A vocabulary in Latin-1 beside one in UTF-8: only entries with accents are not found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws

WORDS = ["été", "oslo", "Málaga", "rome", "señor", "“ja”"]


def _codes(new, old, **more):
    model = nn.ModuleDict({"e": nn.Embedding(len(new), 2)})
    table = {"e.weight": torch.ones(len(old), 2)}
    info = tws.VocabInfo(new, old_vocab=old, **more)
    settings = tws.WarmStartSettings(table, var_name_to_vocab_info={"e.weight": info})
    return [(f.code, f.text) for f in tws.plan_warm_start(model, settings).notes]


def _in(encoding, words=WORDS):
    return [word.encode(encoding) for word in words]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
@pytest.mark.parametrize("which", ["old", "new"])
def test_entries_that_only_the_encoding_keeps_apart_are_told(encoding, which):
    words = WORDS[:-1] if encoding == "latin-1" else WORDS
    sides = {"old": _in("utf-8", words), "new": _in("utf-8", words), which: _in(encoding, words)}
    ((code, text),) = _codes(**sides)
    assert code == "encodings-differ"
    count = len(words) - 2
    assert f"{count} more of the new entries would be found if the {which} vocabulary" in text


@pytest.mark.parametrize("which", ["old", "new"])
def test_forms_leave_the_encoding_as_it_is(which):
    words = [word.upper() for word in WORDS[:-1]]
    sides = {"new": _in("utf-8", words), "old": _in("utf-8", WORDS[:-1])}
    sides[which] = [word.decode().encode("latin-1") for word in sides[which]]
    ((code, text),) = _codes(**sides, forms="casefold")
    assert code == "encodings-differ"
    assert f"3 more of the new entries would be found if the {which} vocabulary" in text


def test_forms_that_find_nothing_but_for_the_encoding_are_an_error():
    with pytest.raises(tws.WarmStartError, match="were read as cp1252"):
        _codes(["ÉTÉ"], _in("latin-1", ["été"]), forms="casefold")


def test_nothing_found_is_an_error():
    with pytest.raises(tws.WarmStartError, match="were read as cp1252"):
        _codes(["été"], _in("latin-1", ["été"]))


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (["é", "x"], [b"\xe9", b"x"]),  # a byte that is a token
        (["Ã", "x", "ã"], [*(bytes([b]) for b in range(128, 256)), b"x"]),
        (["aÌ", "x"], [b"x", *(b"a" + bytes([b, 204]) for b in range(192, 224))]),
        (["été", "x"], _in("utf-8", ["éte", "x"])),
        (_in("latin-1", ["été", "x"]), _in("latin-1", ["ètè", "x"])),
        (["été", "x"], [b"x", b"\xff\xfe\x00a"]),
    ],
    ids=["byte", "bytes", "parts", "utf-8", "latin-1", "binary"],
)
def test_bytes_that_are_no_words_of_the_other_side_are_not(new, old):
    assert "encodings-differ" not in [code for code, _ in _codes(new, old)]


def test_integers_have_no_encoding():
    assert _codes([1, 2], [1]) == []
