"""A vocabulary of which little is found is heard, with the reading that would match."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

OLD = ["ant", "bee", "cat", "dog"]
TABLE = {"e.weight": torch.arange(8.0).reshape(4, 2)}


def start(new, old=OLD, table=TABLE, oov=0, **more):
    """The codes that are heard or noted, and the table that was filled."""
    size = (len(new) if isinstance(new, list) else 4) + oov
    model = nn.ModuleDict({"e": nn.Embedding(size, 2)})
    info = tws.VocabInfo(new, -1, oov, old, **more)
    report = tws.warm_start(model, tws.WarmStartSettings(table, ".*", {"e.weight": info}))
    return [note.code for note in report.notes], model["e"].weight.detach()


@pytest.mark.parametrize(
    ("change", "reading"),
    [
        (str.upper, "case were ignored"),
        ("▁{}".format, "the prefixes"),
        ("Ġ{}".format, "the prefixes"),
        ("##{}".format, "the prefixes"),
        (" {} ".format, "spaces and returns around entries were dropped"),
        ("{}\r".format, "spaces and returns around entries were dropped"),
        ('"{}"'.format, "quotes around entries were dropped"),
        ("{}\t17".format, "only the first of the columns that tabs separate were read"),
        ("17\t{}".format, "only the second of the columns that tabs separate were read"),
        ("{},17".format, "only the first of the columns that commas separate were read"),
        ("b'{}'".format, "Python's b'...' around entries were dropped"),
        ("{}</w>".format, "the suffix '</w>' were dropped"),
        ("feature/item_{}".format, "'feature/item_' in front were dropped"),
        ("\N{ZERO WIDTH NO-BREAK SPACE}{}".format, "a byte-order mark were dropped"),
    ],
)
@pytest.mark.parametrize("side", ["new", "old"])
def test_nothing_found_is_an_error_where_another_reading_would_match(change, reading, side):
    changed = [change(entry) for entry in OLD]
    new, old = (changed, OLD) if side == "new" else (OLD, changed)
    with pytest.raises(tws.PlanError) as caught:
        start(new, old)
    (problem,) = caught.value.problems
    assert problem.code == "vocabulary"
    assert "None of the 4 entries of" in problem.text
    assert f"4 of 4 that were tried would be found if {reading}" in problem.text


@pytest.mark.parametrize(
    ("new", "old", "forms"),
    [
        (["THE", "CAT"], ["the", "cat"], "casefold"),
        (["Ġthe", "Ġcat"], ["▁the", "▁cat"], {"new": "byte_level", "old": "sentencepiece"}),
        (["the", "##s"], ["Ġthe", "s"], {"new": "wordpiece", "old": "byte_level"}),
    ],
    ids=["case", "byte-level and sentencepiece", "WordPiece and byte-level"],
)
def test_the_forms_that_would_match_are_said_and_do(new, old, forms):
    table = {"e.weight": torch.arange(4.0).reshape(2, 2)}
    with pytest.raises(tws.PlanError) as caught:
        start(new, old, table)
    assert f"as by forms={forms!r}. " in str(caught.value)
    assert torch.equal(start(new, old, table, forms=forms)[1], table["e.weight"])


def test_one_side_s_prefixes_need_no_forms():
    with pytest.raises(tws.PlanError, match="the prefixes '▁', 'Ġ' and '##' were dropped. Write"):
        start(["Ġthe", "Ġcat"], ["the", "cat"])


def test_the_same_in_another_normal_form_is_said():
    with pytest.raises(tws.PlanError, match="Unicode's normal form NFC"):
        start(["cafe\N{COMBINING ACUTE ACCENT}"], ["caf\N{LATIN SMALL LETTER E WITH ACUTE}"])


@pytest.mark.parametrize("new", [["1.0", "20.0", "-3.0"], ["0001", "0020", "-03"]])
def test_numbers_that_were_written_otherwise_are_said(new):
    with pytest.raises(tws.PlanError, match="3 of 3 .* if numbers were written alike"):
        start(new, ["1", "20", "-3"])


def test_two_prefixes_may_be_what_tells_entries_apart():
    with pytest.warns(tws.WarmStartWarning, match="0 of 2 new entries"):
        start(["user_1", "user_2"], ["item_1", "item_2"])


def test_nothing_found_where_no_reading_would_match_is_heard():
    with pytest.warns(tws.WarmStartWarning, match="0 of 4 new entries are in the old vocabulary"):
        codes, filled = start(["w", "x", "y", "z"])
    assert codes == ["few-entries-found"]
    assert not filled.any()


def test_under_a_tenth_found_is_heard_and_a_tenth_is_not():
    new = [f"n{at}" for at in range(19)]
    assert start([*new, "cat"])[0] == ["few-entries-found"]
    assert start([*new[:9], "cat"])[0] == []


def test_functions_with_tensorflows_names_stay_as_tensorflows_are():
    rows, count = tws.generate_vocab_remapping(["ANT", "BEE"], OLD)
    assert (rows.tolist(), count) == ([-1, -1], 0)


def test_a_vocabulary_longer_than_its_table_is_heard():
    codes, filled = start(OLD, [*OLD, "eel"])
    assert codes == ["old-vocab-longer"]
    assert torch.equal(filled, TABLE["e.weight"])


def test_oov_rows_that_are_left_behind_name_the_setting():
    table = {"e.weight": torch.arange(12.0).reshape(6, 2)}
    model = nn.ModuleDict({"e": nn.Embedding(6, 2)})
    info = tws.VocabInfo(OLD, -1, 2, OLD)
    settings = tws.WarmStartSettings(table, ".*", {"e.weight": info})
    (note,) = tws.plan_warm_start(model, settings).notes
    assert (note.code, note.severity) == ("oov-rows-left-behind", "note")
    assert "old_num_oov_buckets=2 copies them" in note.text
    for said in (2, 0):
        assert start(OLD, table=table, oov=2, old_num_oov_buckets=said)[0] == []


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("table.txt", b"ant\t0\nbee\t1\ncat\t2\n", "is a table with a number behind a tab"),
        ("bom.txt", b"\xef\xbb\xbfant\nbee\n", "begins with a byte-order mark"),
        ("wide.txt", "ant\nbee\n".encode("utf-16"), "is UTF-16"),
        ("v.gz", b"\x1f\x8b\x08\x00rest", "is compressed and damaged"),
        ("m.keras", b"PK\x03\x04rest", "holds no vocabulary that can be read"),
        ("m.h5", b"\x89HDF\r\n\x1a\nrest", "holds no vocabulary that can be read"),
        ("v.parquet", b"PAR1rest", "cannot be read as parquet"),
        ("other.json", b'{"ant": "0", "bee": 1}', "is JSON, but neither"),
        (
            "tokenizer.json",
            b'{\n  "version": "1.0",\n  "truncation": null',
            "begins as JSON does, but is none",
        ),
        ("list.json", b'["ant", 1.5]', "is JSON, but neither"),
        ("m.model", b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18", "is no model of sentencepiece"),
        ("lfs.txt", b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("side", ["new", "old"])
def test_content_of_another_form_is_named(tmp_path, name, content, what, side):
    path = tmp_path / name
    path.write_bytes(content)
    new, old = (str(path), OLD) if side == "new" else (OLD, str(path))
    with pytest.raises(tws.PlanError) as caught:
        start(new, old)
    assert f"{path} {what}" in caught.value.problems[0].text


@pytest.mark.parametrize(
    "lines",
    [
        b"[UNK]\n[MASK]\n",  # brackets are no JSON
        b"{\n}\n",
        b"new york\t\nparis\t\n",
        b"a\tb\nc\td\n",
        b"1\n2\n",
        b"\xff\n\x80\n",  # bytes of no encoding
    ],
)
def test_what_only_looks_like_it_is_read_as_lines(tmp_path, lines):
    path = tmp_path / "v.txt"
    path.write_bytes(lines)
    table = {"e.weight": torch.arange(4.0).reshape(2, 2)}
    model = nn.ModuleDict({"e": nn.Embedding(2, 2)})
    info = tws.VocabInfo(str(path), -1, 0, lines.split(b"\n")[:-1])
    tws.warm_start(model, tws.WarmStartSettings(table, ".*", {"e.weight": info}))
    assert torch.equal(model["e"].weight, table["e.weight"])


class Name(str):
    """A str of somebody's own."""

    __slots__ = ()


def test_subclasses_of_str_bytes_and_int_are_what_they_are():
    mixed = [np.str_("ant"), Name("bee"), "cat", "dog"]
    assert torch.equal(start(mixed)[1], TABLE["e.weight"])
    ids = [np.int64(3), np.uint8(2), 1, 0]
    assert torch.equal(start(ids, [0, 1, 2, 3])[1], TABLE["e.weight"].flip(0))
    assert torch.equal(start([np.bytes_(b"bee")], [b"ant", b"bee"])[1], TABLE["e.weight"][1:2])


def test_what_keras_puts_first_is_an_entry():
    codes, filled = start(["", "[UNK]", "ant"], ["", "[UNK]", "bee", "ant"])
    assert codes == []
    assert torch.equal(filled, TABLE["e.weight"][[0, 1, 3]])


def test_booleans_and_mixtures_are_refused():
    with pytest.raises(tws.PlanError, match="holds bool"):
        start([True, False])
    with pytest.raises(tws.PlanError, match="holds int, str"):
        start(["ant", 1])


def test_an_id_beyond_64_bits_is_refused():
    with pytest.raises(tws.PlanError, match="beyond 64 bits"):
        start([1 << 64, 1], [1, 2])


def test_a_directory_is_no_vocabulary(tmp_path):
    with pytest.raises(tws.PlanError, match="no file of a tokenizer.*It holds nothing"):
        start(str(tmp_path))
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(tws.PlanError, match="holds no vocabulary: no file of a tokenizer"):
        start(str(tmp_path))


def test_a_warning_is_heard_once_for_each_table():
    model = nn.ModuleDict({"e": nn.Embedding(4, 2)})
    info = tws.VocabInfo(["w", "x", "y", "z"], -1, 0, OLD)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        tws.warm_start(model, tws.WarmStartSettings(TABLE, ".*", {"e.weight": info}))
    assert len(heard) == 1
