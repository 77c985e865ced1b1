"""Forms of entries, the share that must be found, and the check of a report."""

from __future__ import annotations

import pytest
import tokenizers
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.vocabularies.forms import join_forms
from torch_warmstart.vocabularies.loading import read_entries


def found(new, old, new_forms=(), old_forms=()):
    return join_forms(read_entries(new), read_entries(old), new_forms, old_forms).rows.tolist()


def start(info, size, rows=9, **options):
    model = nn.Embedding(size, 1)
    source = {"weight": torch.arange(float(rows)).reshape(rows, 1)}
    settings = tws.WarmStartSettings(source, var_name_to_vocab_info={"weight": info}, **options)
    return model, tws.warm_start(model, settings)


def test_bytes_as_letters_are_those_of_tokenizers():
    letters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in (" the", "é\n", "\x00\x7f\xad", "日本 \t"):
        (piece, _), *more = letters.pre_tokenize_str(text)
        pieces = "".join([piece, *(each for each, _ in more)])
        assert found([pieces.encode()], [text.encode()], ["byte_level"]) == [0]


@pytest.mark.parametrize(
    ("new", "old", "new_forms", "old_forms"),
    [
        ("Ġthe", "▁the", ["byte_level"], ["sentencepiece"]),
        ("the", "the", ["byte_level"], ["sentencepiece"]),
        ("##ing", "ing", ["wordpiece"], ["byte_level"]),
        ("the", "Ġthe", ["wordpiece"], ["byte_level"]),
        ("Ċ", "<0x0A>", ["byte_level"], ["sentencepiece"]),
        ("[CLS]", "[CLS]", ["wordpiece"], ["byte_level"]),
        ("[unused12]", "[unused12]", ["wordpiece"], ["byte_level"]),
        ("[user]", "[user]", ["wordpiece"], ["byte_level"]),
        ("[OOV-1]", "[OOV-1]", ["wordpiece"], ["byte_level"]),
        ("[/E1]", "[/E1]", ["wordpiece"], ["sentencepiece"]),
        ("The", "the", ["casefold"], []),
        ("ĠThe", "▁the", ["byte_level", "casefold"], ["sentencepiece"]),
    ],
)
def test_two_forms_of_one_piece(new, old, new_forms, old_forms):
    assert found([new], ["other", old], new_forms, old_forms) == [1]
    if new != old:
        assert found([new], ["other", old]) == [-1]


def test_the_start_of_a_word_is_not_its_inside():
    assert found(["the", "##the"], ["Ġthe", "the"], ["wordpiece"], ["byte_level"]) == [0, 1]


def test_case_is_never_ignored_unasked():
    with pytest.raises(tws.PlanError, match="if case were ignored"):
        start(tws.VocabInfo(["ANT", "BEE"], old_vocab=["ant", "bee"]), 2)


def test_several_new_entries_may_take_one_old_row_by_forms():
    info = tws.VocabInfo(["The", "the", "dog"], old_vocab=["the", "cat"], forms="casefold")
    model, report = start(info, 3)
    assert model.weight.flatten().tolist() == [0.0, 0.0, 0.0]
    rows = report["weight"].rows
    assert (rows.copied, rows.initialised, rows.dropped) == (2, 1, 1)
    (note,) = (note for note in report.notes if note.code == "forms-collide")
    assert note.text == (
        "weight: by forms='casefold' 1 new entry takes an old row that another one takes, too: "
        "'The' (entry 1) and 'the' (entry 2)."
    )


def test_of_old_entries_that_became_alike_the_one_written_the_same_is_taken():
    old = ["x", "the", "The", "THE"]
    info = tws.VocabInfo(
        ["THE", "thE", "The"], old_vocab=old, forms={"new": "casefold", "old": ["casefold"]}
    )
    model, report = start(info, 3)
    assert model.weight.flatten().tolist() == [3.0, 1.0, 2.0]
    (note,) = (note for note in report.notes if note.code == "forms-collide")
    assert "make 2 old entries the same" in note.text
    assert note.text.endswith("the same: such as 'the' (entry 2) and 'The' (entry 3).")


def test_no_more_than_three_entries_are_told():
    """They can be people's ids."""
    old = [word for pair in ("aA", "bB", "cC", "dD") for word in pair]
    info = tws.VocabInfo(["a", "A", "b", "B"], old_vocab=old, forms="casefold", new_vocab_size=4)
    _, report = start(info, 4)
    told = [note.text.count("(entry ") for note in report.notes if note.code == "forms-collide"]
    assert told == [2]


def test_forms_are_known_and_for_text():
    for forms in ("upper", {"both": "casefold"}, {"new": "upper"}, 3, True, [3], {"new": 2.5}):
        with pytest.raises(tws.SettingsError, match="forms"):
            tws.VocabInfo(["a"], old_vocab=["a"], forms=forms)
    with pytest.raises(tws.PlanError, match="are for text"):
        start(tws.VocabInfo([1], old_vocab=[1], forms="casefold"), 1)


def test_too_few_found_is_refused_before_anything_is_done():
    info = tws.VocabInfo(["a", "b", "x", "y"], old_vocab=["a", "b"], min_found=0.6)
    with pytest.raises(
        tws.PlanError, match=r"2 of 4 new entries \(50.0%\).*min_found=0.6"
    ) as caught:
        start(info, 4)
    assert caught.value.problems[0].code == "too-few-found"
    start(tws.VocabInfo(["a", "b", "x", "y"], old_vocab=["a", "b"], min_found=0.5), 4)
    for share in (-0.1, 1.1, "0.5", True):
        with pytest.raises(tws.SettingsError, match="min_found"):
            tws.VocabInfo(["a"], old_vocab=["a"], min_found=share)


def test_rows_of_no_entry_are_not_looked_for():
    info = tws.VocabInfo({"a": 0, "b": 7}, 8, 1, old_vocab=["b", "a"], min_found=1)
    _, report = start(info, 9)
    rows = report["weight"].rows
    assert (rows.copied, rows.vacant, rows.oov_initialised) == (2, 6, 1)
    assert rows.total == rows.copied + rows.vacant + rows.oov_initialised
    assert report.check(min_found=1) is report


@pytest.mark.parametrize("fill", [None, "keep"])
def test_a_report_that_found_too_little_says_so_in_the_morning(fill):
    info = tws.VocabInfo(["a", "x", "y", "z"], old_vocab=["a"], backup_initializer=fill)
    _, report = start(info, 4)
    report.check(min_found=0.25, max_kept=0)
    with pytest.raises(tws.WarmStartError) as caught:
        report.check(min_found=0.3)
    text = str(caught.value)
    assert "was carried out, but does not pass its check" in text
    assert "weight: 1 of 4 new entries (25.0%) had an old row" in text
    assert "min_found=0.3 asks for 30.0%" in text


def test_a_report_that_kept_too_much_says_what():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    source = {"0.weight": torch.ones(2, 2)}
    settings = tws.WarmStartSettings(source, on_missing="keep")
    report = tws.warm_start(model, settings)
    report.check(max_kept=3)
    with pytest.raises(tws.WarmStartError, match=r"3 variables stayed.*0\.bias \(not in the"):
        report.check(max_kept=2)
    with pytest.raises(tws.SettingsError):
        report.check(min_found=2)


@pytest.mark.parametrize(
    ("new", "old", "text"),
    [
        (["A", "b"], ["a", "x", "a"], "has an entry twice, so its old row is ambiguous"),
        (["A", "b", "A"], ["a", "x"], "has an entry twice: 'A'.* would claim the same old row"),
        (["a", "A", "A"], ["a", "x"], "has an entry twice: 'A'.* would claim the same old row"),
    ],
    ids=["old", "new", "new, behind another"],
)
def test_an_entry_that_is_there_twice_is_an_error_with_forms_too(new, old, text):
    info = tws.VocabInfo(new, old_vocab=old, forms="casefold")
    settings = tws.WarmStartSettings({"weight": torch.ones(len(old), 2)}, ".*", {"weight": info})
    with pytest.raises(tws.PlanError, match=text):
        tws.plan_warm_start(torch.nn.Embedding(len(new), 2), settings)


PIECES = ["the", "a", "Ġthe", "Ġcat", "ing"]
WORDS = ["the", "cat", "##ing", "##a"]


def test_tokens_of_two_kinds_without_forms_are_warned_of():
    said = r"Say forms=.'new': 'wordpiece', 'old': 'byte_level'.. .forms-unsaid"
    with pytest.warns(tws.WarmStartWarning, match=said):
        start(tws.VocabInfo(WORDS, old_vocab=PIECES), 4, 5)


@pytest.mark.parametrize(
    ("new", "forms"),
    [
        (WORDS, {"new": "wordpiece", "old": "byte_level"}),
        (PIECES[::-1], None),
        (["the", "cat"], None),  # nobody can tell how words begin there
    ],
    ids=["said", "alike", "plain"],
)
def test_tokens_of_one_kind_or_with_forms_are_not(new, forms, recwarn):
    start(tws.VocabInfo(new, old_vocab=PIECES, forms=forms), len(new), 5)
    assert not list(recwarn)
