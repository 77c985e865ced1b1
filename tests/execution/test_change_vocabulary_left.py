"""What has as many rows as a live model's table, and is not named beside it."""

from __future__ import annotations

import warnings

import pytest
from torch import nn

import torch_warmstart as tws

OLD = [f"e{at}" for at in range(50)]
OTHERS = {
    "moved": OLD[::-1],
    "reused": [*OLD[:40], *(f"n{at}" for at in range(10))],
    "grown": [*OLD, "new"],
    "shrunk": OLD[:40],
}


def _model(**beside):
    return nn.ModuleDict({"item": nn.Embedding(50, 4), "hidden": nn.Linear(4, 4), **beside})


def _notes(model, new=OTHERS["moved"], names=("item",)):
    infos = dict.fromkeys(names, tws.VocabInfo(new, old_vocab=OLD))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = tws.change_vocabulary(model, infos)
    return [(note.code, note.severity, note.subject) for note in report.notes]


@pytest.mark.parametrize("new", OTHERS)
def test_a_head_of_the_shape_of_a_table_is_warned_of(new):
    model = _model(out=nn.Linear(4, 50))
    assert _notes(model, OTHERS[new]) == [("table-left", "warning", "out.weight")]


def test_the_warning_says_what_to_name():
    info = tws.VocabInfo(OTHERS["reused"], old_vocab=OLD)
    with pytest.warns(tws.WarmStartWarning, match=r"name 'out.weight' too.*\[table-left\]"):
        tws.change_vocabulary(_model(out=nn.Linear(4, 50)), {"item": info})


def test_a_table_with_as_many_rows_is_a_note():
    assert _notes(_model(bias=nn.Embedding(50, 1))) == [("table-left", "note", "bias.weight")]


@pytest.mark.parametrize(
    ("beside", "names", "new"),
    [
        ({"bias": nn.Embedding(50, 1)}, ("item", "bias"), "moved"),
        ({"bias": nn.Embedding(49, 1)}, ("item",), "moved"),
        ({"wide": nn.Linear(50, 50)}, ("item",), "moved"),
        ({"gates": nn.GRU(4, 50)}, ("item",), "moved"),
        ({"bias": nn.Embedding(50, 1)}, ("item",), "same"),
    ],
    ids=["named", "another-number", "a-width", "gates", "all-stay"],
)
def test_of_what_else_nothing_is_told(beside, names, new):
    assert _notes(_model(**beside), OTHERS.get(new, OLD), names) == []


def test_an_untied_head_whose_table_is_named_with_it_is_no_twin_of_another():
    model = _model(out=nn.Linear(4, 50, bias=False), other=nn.Linear(4, 50, bias=False))
    assert _notes(model, names=("item", "out")) == [("table-left", "note", "other.weight")]
