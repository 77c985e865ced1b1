"""How a plan, a report, suggestions and a checkpoint look in a terminal, at four widths.

`TORCH_WARMSTART_SNAPSHOTS=write` writes what is printed now, to be looked at before it is kept.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import shown_things
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.display import Entry, Sheet, terminal_width, told
from torch_warmstart.display.folding import shorten_apart
from torch_warmstart.display.wrapping import (
    text_width,
    wrapped,
    wrapped_clauses,
    wrapped_prose,
)
from torch_warmstart.errors import Finding

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTHS = (80, 100, 120, 200)


def text_of(name: str, width: int) -> str:
    text = shown_things.EVERY[name]()._sheet().as_text(width)
    return re.sub(r"in [\d.]+ s", "in 0.00 s", text) + "\n"


@pytest.mark.parametrize("name", shown_things.EVERY)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_looks_as_it_did(name, width):
    path = SNAPSHOTS / f"{name}_{width}.txt"
    text = text_of(name, width)
    if os.environ.get("TORCH_WARMSTART_SNAPSHOTS") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
    assert max(map(text_width, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 81, 93, 107, 120, 160])
def test_no_line_is_too_wide_and_every_name_is_there(width):
    plan = shown_things.plan()
    text = str(plan._sheet().as_text(width))
    assert max(map(text_width, text.splitlines())) <= width
    joined = re.sub(r"\n *", "", text)
    for item in plan.items:
        if item.reason != "not selected" and ".layers" not in f".{item.name}":
            assert item.name in joined


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_a_remapped_table_are_one_line(width):
    for line in text_of("tables", width).splitlines():
        if line.startswith("    rows:"):
            assert re.search(r" dropped, 2 (old rows )?unused$", line)


# -- the width -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("columns", "width"), [("100", 100), ("20", 80), ("0", 120), ("x", 120)])
def test_the_environment_says_how_wide_and_80_is_the_least(monkeypatch, columns, width):
    monkeypatch.setattr("torch_warmstart.display.wrapping._columns_of_stdout", lambda: 0)
    monkeypatch.setenv("COLUMNS", columns)
    assert terminal_width() == width


def test_without_the_environment_the_terminal_says_it(monkeypatch):
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((133, 20)))
    monkeypatch.setattr("sys.stdout", open(os.devnull, "w"))  # noqa: SIM115
    assert terminal_width() == 133


# -- cells that go on below ------------------------------------------------------------------------


def test_a_name_goes_on_behind_a_separator():
    assert wrapped("dnn/input_layer/city_embedding", 16) == ["dnn/input_layer/", "city_embedding"]
    assert wrapped("a.long_name.weight", 12, indent="  ") == ["a.long_name.", "  weight"]


def test_a_name_without_separators_is_cut_anywhere():
    assert wrapped("x" * 10, 4) == ["xxxx", "xxxx", "xx"]
    assert wrapped("京" * 4, 5) == ["京京", "京京"]


def test_words_of_a_sentence_stay_whole():
    assert wrapped_prose("eps=1e-05 and momentum=0.1 differ.", 14) == [
        "eps=1e-05 and",
        "momentum=0.1",
        "differ.",
    ]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 20])
def test_nothing_is_lost_whatever_the_width(width):
    text = "a/b.c_d: some words, and_a_very_long_name + another"
    for cut in (wrapped, wrapped_prose):
        assert "".join("".join(cut(text, width)).split()) == "".join(text.split())
        assert max(map(text_width, cut(text, width))) <= max(width, 1)


# -- tables ----------------------------------------------------------------------------------------


def sheet(*rows, **fields) -> Sheet:
    columns = ("name", "from", "state", "why")
    entries = tuple(Entry(row) for row in rows)
    return Sheet("Title", columns, entries, "Totals", **{"folds": False, **fields})


def test_what_is_the_same_in_all_rows_is_said_once():
    text = sheet(("a", "x", "kept", "r"), ("b", "y", "kept", "s")).as_text(80)
    assert "In all rows: state kept" in text
    assert text.count("kept") == 1


def test_one_row_is_whole():
    assert "In all rows" not in sheet(("a", "x", "kept", "r")).as_text(80)


def test_reasons_get_a_number_only_where_they_would_not_fit():
    rows = (("a", "x", "kept", "a long reason " * 4), ("b", "y", "copied", ""))
    wide = sheet(*rows, reasons="why").as_text(120)
    narrow = sheet(*rows, reasons="why").as_text(60)
    assert "[1]" not in wide
    assert "\n[1] a long reason" in narrow


def test_paths_that_would_look_the_same_stay_whole():
    paths = [f"scope/{middle}/" + "x" * 40 + "/weights" for middle in ("one", "two")]
    rows = [(name, path, "kept", "") for name, path in zip("ab", paths, strict=True)]
    text = sheet(*rows, paths="from").as_text(70)
    assert all(path in re.sub(r"\n *", "", text) for path in paths)


def test_what_tells_two_paths_apart_is_not_left_out():
    begin, end = "scope/" + "x" * 40, "embedding_weights"
    paths = [f"{begin}/{middle}/{end}" for middle in ("country_of_origin", "city")]
    assert list(shorten_apart(paths).values()) == [
        f"scope/.../country_of_origin/{end}",
        f"scope/.../city/{end}",
    ]


def test_what_is_aside_is_one_line_that_says_how_many():
    rows = tuple(Entry((f"name_{chr(97 + n)}" * 3, "", "", ""), is_aside=True) for n in range(20))
    text = Sheet("T", ("name", "from", "state", "why"), rows, "Totals", aside="Apart").as_text(80)
    (line,) = [line for line in text.splitlines() if line.startswith("Apart")]
    assert line.startswith("Apart: 20 variables: name_a")
    assert line.endswith(", ...")
    assert len(line) <= 80


def test_many_rows_are_laid_out_by_hand():
    rows = [(f"layer_{chr(97 + n % 26)}{n}x.weight", f"k{n}", "copied", "") for n in range(20_000)]
    assert len(sheet(*rows).as_text(80).splitlines()) == 20_000 + 6


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_name_with_line_breaks_begins_no_line_of_its_own(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    state = {
        f"head.{'x' * 70}\x1b[31m\n3 variables: all copied {at}": torch.ones(2) for at in (1, 2)
    }
    found = str(tws.suggest_names(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), state))
    assert "\x1b" not in found
    assert not re.search(r"^ *3 variables", found, re.MULTILINE)


def test_where_paths_are_below_their_rows_a_row_of_the_same_name_needs_none():
    long = "layers.attention.projection_of_queries.weight"
    states = ["copied" * 4, "renamed" * 4, "kept" * 4]  # which leave no room for paths
    paths = [(long, long), ("b", f"x{long}"), ("c", "")]
    rows = [(*path, state, "") for path, state in zip(paths, states, strict=True)]
    text = sheet(*rows, paths="from").as_text(80)
    assert [re.sub(" +", " ", line) for line in text.splitlines()[2:-2]] == [
        "name state",
        f"{long} {states[0]}",
        f"b {states[1]}",
        f" from x{long}",
        f"c {states[2]}",
        " from nothing",
        "Where no line says 'from', the name is the same.",
    ]
    others = sheet(*rows[1:], (long, f"y{long}", "copied" * 4, ""), paths="from").as_text(80)
    assert f"from y{long}" in others
    assert "Where no line" not in others
    assert "nothing" not in others


def test_a_name_that_fits_into_a_line_is_whole():
    name = "encoder.layer.attention.self.query.weight"
    text = sheet((name, "x" * 20, "kept", ""), ("b", "y", "copied", "")).as_text(60)
    assert f"\n{name}\n" in text
    assert re.search(r"^ {20,}x+  kept$", text, re.MULTILINE)


def test_parts_of_a_list_stay_whole_first_of_all():
    parts = ["rows: 3 copied, 2 new", "1 dropped, 2 unused", "new rows: normal_ of two words"]
    assert wrapped_clauses("; ".join(parts), 24, indent=" ") == [
        f"{parts[0]};",
        f" {parts[1]};",
        " new rows: normal_ of",
        " two words",
    ]


# -- findings --------------------------------------------------------------------------------------


def finding(subject, text, code="a-code"):
    return Finding(code, "note", subject, text)


def test_what_is_found_of_many_alike_is_told_once():
    many = [finding(f"t{n}.weight", f"t{n}.weight: {n + 2} rows stay.") for n in range(1, 5)]
    other = finding("t1.weight", "t1.weight is new.", "another-code")
    assert told([*many, other]) == [
        "Note: t1.weight: 3 rows stay. The same, with other numbers, of 3 others: t{2...4}.weight.",
        "Note: t1.weight is new.",
    ]
    equal = [finding(name, f"{name} stays.") for name in ("a", "as", "b.as", "a/s")]
    assert told(equal) == ["Note: a stays. The same of 3 others: as, b.as, a/s."]


def test_two_findings_or_those_about_nothing_in_particular_have_a_line_each():
    alike = [finding("", f"{n} things.") for n in range(4)]
    assert len(told(alike)) == 4
    assert len(told([finding("a", "a: 1 row."), finding("b", "b: 1 row.")])) == 2
    assert len(told([finding(n, f"{n}: not {m}.") for n, m in ("ab", "bc", "cd")])) == 3


def test_a_long_name_is_as_wide_as_the_table_where_that_saves_lines():
    name = "scope/" * 12 + "weight"
    text = sheet((name, "x" * 20, "kept", ""), ("b", "y", "copied", "")).as_text(60)
    first, second, rest = text.splitlines()[3:6]
    assert (first, second) == ("scope/" * 10, "  scope/scope/weight")
    assert re.fullmatch(r" {16,}x+  kept", rest)
