"""Tables are aligned text; repeated layers are one row."""

from __future__ import annotations

from torch_warmstart.tables import fold, render, shorten


def test_columns_are_aligned_and_empty_ones_left_out():
    text = render(("name", "none", "size"), [("a", "", "[1, 2]"), ("longer", "", "[/x]")])
    assert text == "name    size\na       [1, 2]\nlonger  [/x]"


def test_a_long_cell_is_never_wrapped_or_cut():
    assert "x" * 500 in render(("name",), [("x" * 500,)])


def test_layers_that_differ_in_one_number_are_folded_where_the_first_stood():
    rows = [(f"layers.{n}.weight", f"k/{n}/kernel", "same") for n in range(12)]
    assert fold([("first", "f", ""), *rows, ("last", "l", "")], names=2) == [
        ("first", "f", ""),
        ("layers.{0...11}.weight", "k/{0...11}/kernel", "same"),
        ("last", "l", ""),
    ]


def test_numbers_with_gaps_are_listed():
    rows = [(f"layers.{n}", "") for n in (0, 2, 5)]
    assert fold(rows, names=2) == [("layers.{0,2,5}", "")]


def test_a_number_that_is_repeated_in_a_name_varies_as_one():
    rows = [(f"hidden_{n}/norm_{n}", "") for n in range(2)]
    assert fold(rows, names=2) == [("hidden_{0,1}/norm_{0,1}", "")]


def test_rows_with_other_cells_or_two_varying_numbers_are_not_folded():
    rows = [("layer.0", "a"), ("layer.1", "b")]
    assert fold(rows, names=1) == rows
    pairs = [("a.0.1", ""), ("a.1.0", "")]
    assert fold(pairs, names=1) == pairs


def test_a_long_path_loses_its_middle():
    long = "dnn/input_from_feature_columns/input_layer/city_embedding/embedding_weights"
    assert shorten(long) == "dnn/.../city_embedding/embedding_weights"
    assert shorten("dnn/hiddenlayer_0/kernel") == "dnn/hiddenlayer_0/kernel"
    assert shorten("x" * 80) == "x" * 80


def test_wide_characters_take_two_columns_and_combining_ones_none():
    rows = [("日本", "1"), ("e\u0301x", "2"), ("abcd", "3")]
    assert render(("n", "v"), rows) == "n     v\n日本  1\ne\u0301x    2\nabcd  3"


def test_what_a_terminal_would_act_upon_is_spelt_out():
    assert render(("n",), [("a\x1b[31m\n\udcff",)]) == "n\na\\x1b[31m\\n\\udcff"


def test_a_table_without_rows_is_empty():
    assert render(("name",), []) == ""


def test_numbers_are_aligned_to_the_right():
    assert render(("n", "size"), [("a", "1"), ("b", "1,000")], right=("size",)) == (
        "n   size\na      1\nb  1,000"
    )
