"""New rows that a module has for no input: zeros, whatever makes the others."""

from __future__ import annotations

from dataclasses import replace

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


NO_INPUT = [None, "a", "b"]  # row 0 is for no input, as nothing but the module says


def _updated(old):
    """A night on which "c" was seen, and takes a row that is free."""
    return tws.update_vocabulary(old, {"c": 9}, today=20_001)


def test_an_entry_that_has_come_into_the_row_for_no_input_is_told():
    new = _updated(NO_INPUT)
    info = tws.VocabInfo(new, old_vocab=NO_INPUT)
    settings = tws.WarmStartSettings({"weight": table(3, 3)}, ".*", {"weight": info})
    told = r"row 0 is the padding_idx .* row of 'c'.*'mask': range\(0, 1\).*padding-row-taken"
    with pytest.warns(tws.WarmStartWarning, match=told):
        tws.warm_start(nn.Embedding(3, 3, padding_idx=0), settings)


@pytest.mark.parametrize("entry", ["<pad>", "", "PADDING", 0, -1])
def test_what_may_be_called_no_input_is_not(entry):
    rest = [8, 9] if isinstance(entry, int) else ["a", "b"]
    info = tws.VocabInfo([entry, *rest], old_vocab=rest)
    settings = tws.WarmStartSettings({"weight": table(2, 3)}, ".*", {"weight": info})
    plan = tws.plan_warm_start(nn.Embedding(3, 3, padding_idx=0), settings)
    assert "padding-row-taken" not in [note.code for note in plan.notes]


def test_a_vocabulary_can_say_which_row_is_for_no_input(tmp_path):
    loaded = tws.Vocabulary.load(NO_INPUT)
    old = replace(loaded, special={**loaded.special, "mask": range(1)})
    _updated(old).save(tmp_path / "tuesday.parquet")
    new = tws.Vocabulary.load(tmp_path / "tuesday.parquet")
    assert list(new.entries) == [None, b"a", b"b", b"c"]
    model = nn.Embedding(4, 3, padding_idx=0)
    settings = tws.WarmStartSettings(
        {"weight": table(3, 3)}, ".*", {"weight": tws.VocabInfo(new, old_vocab=old)}
    )
    rows = tws.warm_start(model, settings)["weight"].rows
    assert (rows.copied, rows.vacant_copied, rows.initialised) == (3, 1, 1)
    assert torch.equal(model.weight[:3], table(3, 3))


def _masked(entries):
    return replace(tws.Vocabulary.load(entries), special={"mask": range(1)})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (NO_INPUT, [None, "b", "c", "a"]),
        (NO_INPUT, _masked([None, "b", "c", "a"])),
        (tws.Vocabulary.load({"a": 1, "b": 2}), {"b": 1, "c": 2, "a": 3}),
    ],
    ids=["none", "said-of-one", "numbers"],
)
def test_a_live_models_row_for_no_input_stays_what_it_is(old, new):
    model = nn.ModuleDict({"tok": nn.Embedding(3, 3, padding_idx=0), "out": nn.Linear(3, 3)})
    model["out"].weight = model["tok"].weight
    nn.init.normal_(model["tok"].weight)
    weight, bias = model["tok"].weight.detach().clone(), model["out"].bias.detach().clone()
    report = tws.change_vocabulary(model, {"tok": tws.VocabInfo(new, old_vocab=old)})
    assert model["tok"].padding_idx == 0
    assert torch.equal(model["tok"].weight[[0, 1, 3]], weight[[0, 2, 1]])
    assert torch.equal(model["out"].bias[[0, 1, 3]], bias[[0, 2, 1]])
    rows = report["tok.weight"].rows
    assert (rows.copied, rows.vacant_copied, rows.vacant, rows.initialised) == (3, 1, 0, 1)


@pytest.mark.parametrize(
    ("new", "told"),
    [(["a", "b", "c"], "in the new one it is the row of 'c'"), (["a"], "the new has none there")],
    ids=["taken", "short"],
)
def test_a_live_models_row_for_no_input_is_not_an_entrys(new, told):
    model = nn.Embedding(3, 3, padding_idx=2)
    info = tws.VocabInfo(new, old_vocab=tws.Vocabulary.load({"a": 0, "b": 1}).padded_to(3))
    with pytest.raises(tws.PlanError, match=f"no entry in the old.*{told}") as refused:
        tws.change_vocabulary(model, {"weight": info})
    assert [problem.code for problem in refused.value.problems] == ["padding-row-lost"]
    assert (model.padding_idx, len(model.weight)) == (2, 3)
