"""Tables are aligned text; repeated layers are one row."""

from __future__ import annotations

from torch_warmstart.display.folding import fold, fold_endings, shorten_apart
from torch_warmstart.display.tables import render


def test_columns_are_aligned_and_empty_ones_left_out():
    text = render(("name", "none", "size"), [("a", "", "[1, 2]"), ("longer", "", "[/x]")])
    assert text == "name    size\na       [1, 2]\nlonger  [/x]"


def test_without_a_width_a_long_cell_is_never_wrapped_or_cut():
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


def test_what_varies_most_is_folded_and_the_rest_stays_apart():
    rows = [(f"layers.{n}.norm{m}", f"k/{2 * n + m}") for n in range(3) for m in (1, 2)]
    assert fold(rows, names=2) == [
        ("layers.{0...2}.norm1", "k/{1,3,5}"),
        ("layers.{0...2}.norm2", "k/{2,4,6}"),
    ]


def test_numbers_in_equal_steps_are_a_range():
    rows = [(f"layers.{n}", f"state/{16 * n + 3}") for n in range(12)]
    assert fold(rows, names=2) == [("layers.{0...11}", "state/{3,19...179}")]


def test_endings_are_joined_where_the_first_stood():
    rows = [
        ("w", "w", "[2]", "copied"),
        ("w/step", "state/0/step", "scalar", "copied"),
        ("b/m", "state/1/m", "[1]", "copied"),
        ("w/m", "state/0/m", "[2]", "copied"),
        ("w/v", "v/Adam", "[2]", "renamed"),
    ]
    assert fold_endings(rows, names=2, joined=2) == [
        rows[0],
        ("w/{step,m}", "state/0/{step,m}", "scalar, [2]", "copied"),
        rows[2],
        rows[4],
    ]
    assert fold_endings(rows, names=2) == rows


def test_endings_of_their_own_are_joined_in_the_same_order():
    rows = [("w/m", "v/Adam"), ("w/v", "v/Adam_1"), ("w/n", ""), ("w/o", "")]
    assert fold_endings(rows, names=2) == [("w/{m,v}", "v/{Adam,Adam_1}"), ("w/{n,o}", "")]


def test_names_without_slash_have_no_ending():
    rows = [("a", "k/x"), ("b", "k/y"), ("a", "k/x")]
    assert fold_endings(rows, names=2) == rows


def test_a_long_path_loses_its_middle():
    long = "dnn/input_from_feature_columns/input_layer/city_embedding/embedding_weights"
    short = {long: "dnn/.../city_embedding/embedding_weights"}
    same = ["dnn/hiddenlayer_0/kernel", "x" * 80]
    assert shorten_apart([long, *same]) == {**short, **{path: path for path in same}}


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
