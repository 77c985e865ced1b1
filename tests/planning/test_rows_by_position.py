"""Tensors of other layers that may have a row for each entry of a vocabulary that moves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, VocabInfo, WarmStartSettings

OLD = [f"e{at}" for at in range(50)]
MOVED = VocabInfo([f"e{at * 7 % 50}" for at in range(50)], old_vocab=OLD)
REUSED = VocabInfo([*OLD[:49], "new"], old_vocab=OLD)  # what stays is where it was
GROWN = VocabInfo([*OLD[:49], "new"], old_vocab=tws.Vocabulary.load(OLD[:49]).padded_to(50))
ALL = {"embed.weight": MOVED, "head": MOVED, "class_weights": MOVED}


class Untied(nn.Module):
    """A head that is not tied to its embedding, and a loss that knows the classes."""

    def __init__(self, width=8):
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.hidden = nn.Linear(width, width)
        self.head = nn.Linear(width, 50)
        self.register_buffer("class_weights", torch.rand(50))


def _notes(infos, make=Untied):
    report = tws.warm_start(make(), WarmStartSettings(make().state_dict(), [".*"], infos))
    return [(note.code, note.severity, note.subject) for note in report.notes]


@pytest.mark.parametrize("info", [MOVED, REUSED], ids=["moved", "reused"])
@pytest.mark.parametrize(("moved", "left"), [("embed", "head"), ("head", "embed")])
def test_a_head_and_an_embedding_of_one_shape_are_most_probably_of_one_vocabulary(
    moved, left, info
):
    with pytest.warns(tws.WarmStartWarning, match=f"{left}.weight has 50 rows, as many as"):
        found = _notes({moved: info})
    assert found == [("rows-by-position", "warning", f"{left}.weight")]


def test_what_else_has_as_many_rows_is_a_note():
    found = _notes({name: info for name, info in ALL.items() if name != "class_weights"})
    assert found == [("rows-by-position", "note", "class_weights")]


@pytest.mark.parametrize("info", [MOVED, ClipOrPad()], ids=["moved", "by position"])
def test_whoever_is_told_of_it_says_nothing(info):
    assert not _notes({**ALL, "class_weights": info})


def test_rows_that_stay_where_they_are_are_not_told():
    assert not _notes({"embed.weight": GROWN})


def test_a_number_of_rows_that_is_a_width_besides_says_nothing():
    assert not _notes({"embed.weight": MOVED}, lambda: Untied(width=50))


class _WithBatchAxis(Untied):
    """Its bias is ready to be added to a batch, as BART's is."""

    def __init__(self):
        super().__init__()
        self.register_buffer("logits_bias", torch.rand(1, 50))


def _without_weights():
    model = _WithBatchAxis()
    del model.class_weights
    return model


def test_a_bias_with_an_axis_for_the_batch_has_its_rows_along_the_other():
    infos = {"embed": MOVED, "head": MOVED}
    with_axis = VocabInfo(MOVED.new_vocab, old_vocab=OLD, axis=1)
    said = ("rows-by-position", "note", "logits_bias")
    assert _notes(infos, _without_weights) == [said]
    assert not _notes({**infos, "logits_bias": with_axis}, _without_weights)
    assert not _notes({**infos, "logits_bias": ClipOrPad(axis=1)}, _without_weights)


def test_such_a_bias_does_not_hide_a_head_that_is_left():
    with pytest.warns(tws.WarmStartWarning, match="head.weight has 50 rows, as many as"):
        found = _notes({"embed": MOVED}, _without_weights)
    assert found == [("rows-by-position", "warning", "head.weight")]


@pytest.mark.parametrize("named", ["class_weights", "logits_bias"])
def test_in_a_module_of_ones_own_one_without_that_axis_has_the_same_rows(named):
    (other,) = {"class_weights", "logits_bias"} - {named}
    info = VocabInfo(MOVED.new_vocab, old_vocab=OLD, axis=int(named == "logits_bias"))
    with pytest.warns(tws.WarmStartWarning, match=f"and {other}, of the same layer, as many"):
        _notes({"embed": MOVED, "head": MOVED, named: info}, _WithBatchAxis)


class _Positions(nn.Module):
    """As many places as there are tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.positions = nn.Embedding(50, 8), nn.Embedding(50, 8)
        self.head = nn.Linear(8, 50)


class _Labels(nn.Module):
    """As many classes as types of segments, and more tokens than either."""

    def __init__(self):
        super().__init__()
        self.tokens, self.segments = nn.Embedding(60, 8), nn.Embedding(50, 8)
        self.head = nn.Linear(8, 50)


@pytest.mark.parametrize(
    ("infos", "make", "subject"),
    [
        ({"embed": MOVED, "head": MOVED}, _Positions, "positions.weight"),
        ({"head": MOVED}, _Labels, "segments.weight"),
    ],
    ids=["the twin moves, too", "another embedding has more rows"],
)
def test_an_embedding_that_is_no_twin_of_the_head_is_a_note(infos, make, subject):
    report = tws.warm_start(make(), WarmStartSettings(make().state_dict(), ".*", infos))
    found = [(note.severity, note.subject) for note in report.notes]
    assert found == [("note", subject)]


@pytest.mark.parametrize(
    ("layer", "rows"),
    [(nn.LSTM(8, 8), 32), (nn.GRU(8, 8), 24), (nn.MultiheadAttention(8, 2), 24)],
    ids=["LSTM", "GRU", "attention"],
)
def test_gates_and_projections_are_no_entries(layer, rows):
    def model():
        return nn.ModuleDict({"embed": nn.Embedding(rows, 8), "layer": layer})

    names = OLD[:rows]
    info = VocabInfo(names[::-1], old_vocab=names)
    assert not _notes({"embed": info}, model)


def test_tables_of_many_sizes_that_go_by_position_are_told_once():
    def model():
        sizes = {f"{name}{n}": nn.Embedding(n, 2) for n in range(40, 50) for name in "ab"}
        return nn.ModuleDict(sizes)

    infos = {f"a{n}": VocabInfo(OLD[:n][::-1], old_vocab=OLD[:n]) for n in range(40, 50)}
    source = WarmStartSettings(model().state_dict(), ".*", infos)
    (note,) = tws.warm_start(model(), source).notes
    assert "The same, with other numbers, of 'b41.weight', 'b42.weight', " in note.text
    assert "and 4 more." in note.text


@pytest.mark.parametrize(
    "head",
    [nn.Linear(50, 1), nn.Conv1d(50, 1, 1), nn.Bilinear(50, 8, 1)],
    ids=["linear", "conv", "bilinear"],
)
def test_what_a_head_of_one_output_has_behind_are_its_inputs(head):
    def model():
        layers = {"embed": nn.Embedding(50, 8), "hidden": nn.Linear(8, 50), "head": head}
        return nn.ModuleDict(layers)

    assert not _notes({"embed": MOVED}, model)
