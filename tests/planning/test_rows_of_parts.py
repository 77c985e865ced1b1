"""Tensors in which gates or projections lie one after the other: by position, which is which?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, SegmentInfo, VocabInfo, WarmStartSettings

LAYERS = {
    "lstm": (nn.LSTM, "ifgo", "weight_hh_l0"),
    "gru": (nn.GRU, "rzn", "weight_hh_l0"),
    "lstm cell": (nn.LSTMCell, "ifgo", "weight_hh"),
    "gru cell": (nn.GRUCell, "rzn", "weight_hh"),
}


def _by_part(parts, old, new, axis=0):
    """As the message writes it."""
    return SegmentInfo(
        {part: VocabInfo(range(new), old_vocab=range(old)) for part in parts},
        dict.fromkeys(parts, old),
        axis=axis,
    )


def _of(layer, infos):
    return {name: infos for name, _ in layer.named_parameters()}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
def test_units_of_gates_go_to_their_own_gate(kind, sizes):
    make, parts, recurrent = LAYERS[kind]
    old, new = make(5, sizes[0]), make(5, sizes[1])
    both = min(sizes)
    rows = _by_part(parts, *sizes)
    infos = {**_of(new, rows), recurrent: [rows, ClipOrPad(axis=1)]}
    tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", infos))
    for name, value in old.named_parameters():
        gates = value.unflatten(0, (len(parts), -1))[:, :both]
        found = new.get_parameter(name).unflatten(0, (len(parts), -1))[:, :both]
        columns = both if name == recurrent else None
        assert torch.equal(found[:, :, :columns] if columns else found, gates[..., :columns])


@pytest.mark.parametrize("kind", LAYERS)
def test_by_position_is_refused_with_what_is_right(kind):
    make, parts, recurrent = LAYERS[kind]
    old, new = make(5, 2), make(5, 3)
    infos = {**_of(new, ClipOrPad()), recurrent: [ClipOrPad(), ClipOrPad(axis=1)]}
    right = rf"range\(3\), old_vocab=range\(2\)\) for part in '{parts}'"
    with pytest.raises(tws.PlanError, match=right) as error:
        tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", infos))
    assert {problem.code for problem in error.value.problems} == {"rows-of-parts"}


def test_a_shape_that_does_not_fit_is_advised_so():
    with pytest.raises(tws.PlanError, match="SegmentInfo") as error:
        tws.warm_start(nn.LSTM(5, 3), nn.LSTM(5, 2).state_dict())
    assert "ClipOrPad" not in str(error.value)


def test_projections_of_an_attention_are_parts_too():
    old, new = nn.MultiheadAttention(4, 2), nn.MultiheadAttention(6, 2)
    more = {"out_proj.weight": [ClipOrPad(), ClipOrPad(axis=1)], "out_proj.bias": ClipOrPad()}
    wrong = {"in_proj_weight": [ClipOrPad(), ClipOrPad(axis=1)], "in_proj_bias": ClipOrPad()}
    with pytest.raises(tws.PlanError, match=r"3 projections \(q, k, v\)"):
        tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", {**wrong, **more}))
    rows = _by_part("qkv", 4, 6)
    right = {"in_proj_weight": [rows, ClipOrPad(axis=1)], "in_proj_bias": rows, **more}
    tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", right))
    found = new.in_proj_weight.unflatten(0, (3, 6))[:, :4, :4]
    assert torch.equal(found, old.in_proj_weight.unflatten(0, (3, 4)))


def test_inputs_and_layers_of_one_gate_go_by_position():
    old, new = nn.LSTM(5, 2), nn.LSTM(4, 2)
    infos = {"weight_ih_l0": ClipOrPad(axis=1)}
    tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", infos))
    assert torch.equal(new.weight_ih_l0, old.weight_ih_l0[:, :4])
    plain, grown = nn.RNNCell(5, 2), nn.RNNCell(5, 3)
    infos = {**_of(grown, ClipOrPad()), "weight_hh": [ClipOrPad(), ClipOrPad(axis=1)]}
    tws.warm_start(grown, WarmStartSettings(plain.state_dict(), ".*", infos))
    assert torch.equal(grown.weight_ih[:2], plain.weight_ih)


def test_both_directions_are_parts_of_what_a_later_layer_reads():
    old, new = (nn.LSTM(5, size, 2, bidirectional=True) for size in (2, 3))
    name = "weight_ih_l1_reverse"
    infos = {name: [_by_part("ifgo", 2, 3), ClipOrPad(axis=1)]}
    with pytest.raises(tws.PlanError, match=r"2 directions \(f, b\) .* axis=1\)"):
        tws.warm_start(new, WarmStartSettings(old.state_dict(), None, infos))
    infos = {name: [_by_part("ifgo", 2, 3), _by_part("fb", 2, 3, axis=1)]}
    tws.warm_start(new, WarmStartSettings(old.state_dict(), None, infos))
    found = new.get_parameter(name).reshape(4, 3, 2, 3)[:, :2, :, :2]
    assert torch.equal(found, old.get_parameter(name).reshape(4, 2, 2, 2))


@pytest.mark.parametrize("make", [nn.Conv1d, nn.Conv2d])
def test_groups_that_grow_are_parts(make):
    old, new = make(4, 4, 1, groups=2), make(4, 6, 1, groups=2)
    infos = {"weight": ClipOrPad(), "bias": ClipOrPad()}
    with pytest.raises(tws.PlanError, match=r"2 groups one .*map\(str, range\(2\)\), 2\)"):
        tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", infos))
    infos = dict.fromkeys(infos, _by_part("01", 2, 3))
    tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", infos))
    assert torch.equal(new.weight[[0, 1, 3, 4]], old.weight)
    assert torch.equal(new.bias[[0, 1, 3, 4]], old.bias)


def test_more_groups_of_the_same_size_go_by_position():
    old, new = nn.Conv2d(4, 8, 1, groups=4), nn.Conv2d(6, 12, 1, groups=6)
    infos = {"weight": ClipOrPad(), "bias": ClipOrPad()}
    tws.warm_start(new, WarmStartSettings(old.state_dict(), ".*", infos))
    assert torch.equal(new.weight[:8], old.weight)


def _channels(old, new, entries):
    """A convolution's channels along axis 0 that go to those of the same entries."""
    info = VocabInfo(list(entries), old_vocab=list("abcd"))
    return tws.warm_start(new, WarmStartSettings(nn.Sequential(old), ".*", {"0.weight": info}))


GROUPED = {
    "outputs": lambda size: nn.Conv1d(4, size, 1, groups=2, bias=False),
    "inputs": lambda size: nn.ConvTranspose1d(size, 4, 1, groups=2, bias=False),
}


@pytest.mark.parametrize("what", GROUPED)
@pytest.mark.parametrize("entries", ["acbd", "abcdxy"])
def test_channels_of_several_groups_in_one_are_warned_of(what, entries):
    make = GROUPED[what]
    with pytest.warns(tws.WarmStartWarning, match="of several of its layer's 2 groups into one"):
        report = _channels(make(4), nn.Sequential(make(len(entries))), entries)
    assert [note.code for note in report.notes] == ["rows-of-parts"]


@pytest.mark.parametrize("what", GROUPED)
@pytest.mark.parametrize("entries", ["abcd", "badc", "abxcdy", "cdab", "xd"])
def test_channels_that_stay_together_are_not(what, entries):
    make = GROUPED[what]
    report = _channels(make(4), nn.Sequential(make(len(entries))), entries)
    assert not report.notes


def test_a_depthwise_convolution_has_a_group_for_each_channel():
    old, new = (nn.Conv1d(size, size, 1, groups=size, bias=False) for size in (4, 5))
    assert not _channels(old, nn.Sequential(new), "dbxac").notes
