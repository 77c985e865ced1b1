"""New rows that a module has for no input: zeros, whatever makes the others."""

from __future__ import annotations

import pytest
import torch
from rows_helpers import table
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init

OLD, NEW = ["a", "b"], ["<pad>", "a", "b", "n"]


def ones(new: tws.NewRows) -> torch.Tensor:
    return torch.ones(len(new), new.width)


MAKERS = {
    "zeros": None,
    "mean": init.mean(),
    "noise": init.mean() + init.noise(0.1),
    "normal": init.normal(),
    "pieces": init.subword({"<pad>": ["a"], "n": ["b"]}),
    "chain": init.subword({"<pad>": ["a"]}) | init.mean(),
    "function": ones,
    "torch": nn.init.ones_,
}


def _start(model, made, new=NEW):
    info = tws.VocabInfo(new, old_vocab=OLD, backup_initializer=made)
    settings = tws.WarmStartSettings({"weight": table(2, 3)}, ".*", {"weight": info})
    return str(tws.plan_warm_start(model, settings)), tws.warm_start(model, settings)["weight"]


@pytest.mark.parametrize("made", MAKERS)
@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_a_new_row_for_no_input_is_zeros(kind, made):
    model = kind(4, 3, padding_idx=0)
    nn.init.ones_(model.weight)
    plan, report = _start(model, MAKERS[made])
    assert not model.weight[0].any()
    assert torch.equal(model.weight[1:3], table(2, 3))
    assert model.weight[3].any() == (made != "zeros")
    if made == "torch":
        assert "ones_, row 0 zeros (padding_idx)" in " ".join(plan.split())
    elif made != "zeros":
        assert report.new_rows.answered[0] == ("zeros (padding_idx)", 1)
        assert sum(count for _, count in report.new_rows.answered) == 2
        assert report.new_rows.show("<pad>") == "<pad> = zeros (padding_idx)"


def test_what_the_model_has_is_kept_and_an_old_row_is_taken():
    model = nn.Embedding(4, 3, padding_idx=0)
    nn.init.ones_(model.weight)
    _start(model, "keep")
    assert model.weight[0].all()
    _start(model, init.mean(), ["a", "<pad>", "b", "n"])
    assert torch.equal(model.weight[0], table(2, 3)[0])
    torch.testing.assert_close(model.weight[1], table(2, 3).mean(0))


def test_what_is_drawn_for_the_others_does_not_depend_on_it():
    with_it, without = nn.Embedding(4, 3, padding_idx=0), nn.Embedding(4, 3)
    for model in (with_it, without):
        torch.manual_seed(0)
        _start(model, init.normal())
    assert torch.equal(with_it.weight[1:], without.weight[1:])


def test_a_live_model_has_its_padding_row_where_the_entry_is():
    model = nn.Embedding(3, 3, padding_idx=0)
    info = tws.VocabInfo(
        ["x", "y", "<pad>", "a"], old_vocab=["<pad>", "a", "b"], backup_initializer=nn.init.ones_
    )
    tws.change_vocabulary(model, {"weight": info})
    assert model.padding_idx == 2
    assert model.weight[:2].eq(1).all()
    assert not model.weight[2].any()
