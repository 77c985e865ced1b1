"""A file's first line that looks like a header is an entry, as every line is, and is told."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import torch_warmstart as tws

WORDS = ["apple", "bread", "corn", "date", "egg", "fig", "grape", "honey"]
IDS = ["17", "3", "256", "1001"]
KINDS = [
    *("unk", "unknown", "ids", "words", "features", "said", "too few", "levels", "columns"),
    *("countries", "languages", "searches", "text", "grades", "codes", "ages", "unknown user"),
    *("padding", "no item"),
]


def _file(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return str(path)


def _start(new, old, *, rows=None, height=None, **more):
    """The table, and the codes of what is warned of."""
    model = nn.ModuleDict({"e": nn.Embedding(height or len(tws.Vocabulary.load(new)), 2)})
    rows = rows or len(tws.Vocabulary.load(old))
    table = {"e.weight": torch.arange(float(rows))[:, None].repeat(1, 2)}
    info = tws.VocabInfo(new, old_vocab=old, **more)
    settings = tws.WarmStartSettings(table, var_name_to_vocab_info={"e.weight": info})
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        tws.warm_start(model, settings)
    return model["e"].weight[:, 0].tolist(), [str(warning.message) for warning in heard]


@pytest.mark.parametrize(
    "header", ["token", "Word", "item_id", "movieId", "id", "Item ID", "id\tcount"]
)
@pytest.mark.parametrize("side", ["old", "new"])
def test_a_header_above_words_is_told_on_either_side(tmp_path, header, side):
    sides = {"old": WORDS, "new": WORDS, side: [header, *WORDS]}
    paths = {name: _file(tmp_path / f"{name}.txt", lines) for name, lines in sides.items()}
    found, (text,) = _start(paths["new"], paths["old"])
    rows = [*map(float, range(9))]
    assert found == (rows[1:] if side == "old" else [0, *rows[:-1]])
    assert f"{header!r} (line 1) of {paths[side]} looks like a header" in text
    assert text.endswith("[header-as-entry]")


@pytest.mark.parametrize("header", ["asin", "Product Number", "sku"])
def test_a_name_above_numbers_is_one(tmp_path, header):
    path = _file(tmp_path / "ids.txt", [header, *IDS])
    assert "[header-as-entry]" in _start(path, path)[1][0]


@pytest.mark.parametrize(
    "lines",
    [
        ["[UNK]", *IDS],
        ["unknown", *IDS],
        IDS,
        ["apple", *WORDS[1:]],
        ["user_id", "item_id", "genre"],
        ["said", *WORDS],
        ["token", "type"],
        ["entry", "mid", "senior", "executive"],
        ["user_id", "age", "gender"],
        ["ID", "US", "IN", "BR", "JP", "MX", "PH", "VN", "TH", "TR"],
        ["id", "en", "zh-CN", "pt-BR", "ja", "ko", "de", "fr", "es-MX", "it"],
        ["voter id", *WORDS],
        ["item, other", *WORDS],
        ["K", *IDS],
        ["V4581", *IDS],
        ["under 18", *IDS],
        ["unknown_user", *IDS],
        ["PAD_TOKEN", *IDS],
        ["no item", *IDS],
    ],
    ids=KINDS,
)
def test_other_first_lines_are_entries(tmp_path, lines):
    path = _file(tmp_path / "v.txt", lines)
    assert _start(path, path)[1] == []


def test_a_sequence_says_itself_what_its_entries_are():
    entries = ["token", *WORDS]
    assert _start(entries, entries)[1] == []


def test_a_table_that_is_too_low_for_the_header_says_so(tmp_path):
    path = _file(tmp_path / "v.txt", ["token", *WORDS])
    with pytest.raises(tws.PlanError, match=r"reach to row 8.*'token' \(line 1\) of .*a header"):
        _start(path, path, rows=8)
    with pytest.raises(tws.PlanError, match=r"describes 9.*'token' \(line 1\) of .*a header"):
        _start(path, path, height=8)


def test_it_is_told_by_forms_too_and_of_a_feature_s_vocabulary(tmp_path):
    path = _file(tmp_path / "v.txt", ["token", *WORDS])
    assert "[header-as-entry]" in _start(path, path, forms="casefold")[1][0]
    model = nn.ModuleDict({"fc": nn.Linear(9, 2, bias=False)})
    segments = {"food": tws.VocabInfo(path, old_vocab=path)}
    settings = tws.WarmStartSettings(
        {"fc.weight": torch.ones(2, 9)},
        var_name_to_vocab_info={"fc.weight": tws.SegmentInfo(segments, {"food": 9})},
    )
    assert [note.code for note in tws.plan_warm_start(model, settings).notes] == ["header-as-entry"]


def test_a_column_by_number_is_said_to_have_no_name(tmp_path):
    pytest.importorskip("pyarrow")
    path = _file(tmp_path / "v.csv", ["word,kind", *(f"{word},food" for word in WORDS)])
    column = tws.Vocabulary.load(path, column=0)
    assert _start(column, column, height=9, rows=9)[1] == []


@pytest.mark.parametrize("header", ["token", None])
def test_an_update_tells_it_too(tmp_path, header):
    path = _file(tmp_path / "old.txt", [header, *WORDS] if header else WORDS)
    for source in (path, tws.Vocabulary.load(path)):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            updated = tws.update_vocabulary(source, {"kiwi": 1}, today=20001)
        assert [w.filename for w in heard] == ([__file__] if header else [])
        assert all(str(w.message).endswith("[header-as-entry]") for w in heard)
        assert updated.rows(["apple"]).tolist() == [1 if header else 0]
