"""What `optimizer=` asks for: the state of the parameters that are taken, by whatever selection."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_warmstart as tws


def _trained(kind=torch.optim.Adam, seed=0, **options):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    optimizer = kind(model.parameters(), lr=0.1, **options)
    for _ in range(3):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def _fresh(kind=torch.optim.Adam, **options):
    torch.manual_seed(9)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return model, kind(model.parameters(), lr=0.1, **options)


def _saved(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def _names_with_state(model, optimizer):
    return [name for name, p in model.named_parameters() if optimizer.state.get(p)]


def test_a_checkpoint_of_yesterday_brings_the_whole_state(tmp_path):
    old, old_optimizer = _trained()
    torch.save(_saved(old, old_optimizer), tmp_path / "day4.pt")
    model, optimizer = _fresh()
    report = tws.warm_start(model, tmp_path / "day4.pt", optimizer=optimizer)
    before, now = old_optimizer.state_dict()["state"], optimizer.state_dict()["state"]
    assert before.keys() == now.keys()
    assert all(torch.equal(before[n][slot], now[n][slot]) for n in before for slot in before[n])
    assert sum(account.state != "kept" for account in report.variables if "/" in account.name) == 18
    assert not report.missing_keys


def test_a_pattern_for_parameters_does_not_filter_their_slots():
    old, old_optimizer = _trained()
    model, optimizer = _fresh()
    settings = tws.WarmStartSettings(_saved(old, old_optimizer), r"2\.weight$")
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert _names_with_state(model, optimizer) == ["2.weight"]
    assert report["0.weight/exp_avg"].reason == "not selected"


def test_a_list_takes_exactly_the_slots_that_match():
    old, old_optimizer = _trained(torch.optim.SGD, momentum=0.9)
    model, optimizer = _fresh(torch.optim.SGD, momentum=0.9)
    settings = tws.WarmStartSettings(_saved(old, old_optimizer), ["2.weight", "2.bias[^/]"])
    tws.warm_start(model, settings, optimizer=optimizer)
    assert _names_with_state(model, optimizer) == ["2.weight"]


@pytest.mark.parametrize("selection", [".*", "2", [".*"]])
@pytest.mark.parametrize("on_missing", ["error", "keep"])
def test_a_checkpoint_without_any_state_is_one_warning(selection, on_missing):
    old, _ = _trained()
    model, optimizer = _trained(seed=3)
    before = {k: v.clone() for k, v in optimizer.state[model[2].weight].items()}
    settings = tws.WarmStartSettings(old.state_dict(), selection, on_missing=on_missing)
    report = tws.warm_start(model, settings, optimizer=optimizer)
    of_optimizer = [note for note in report.notes if note.code != "buffers-left-behind"]
    assert [(note.code, note.severity) for note in of_optimizer] == [
        ("no-optimizer-state", "warning")
    ]
    assert torch.equal(model[2].weight, old[2].weight)
    assert all(torch.equal(optimizer.state[model[2].weight][k], v) for k, v in before.items())
    assert "2.weight/exp_avg" in report.missing_keys


def test_an_optimizer_that_kept_nothing_is_no_state():
    old, old_optimizer = _trained(torch.optim.SGD)
    model, optimizer = _fresh(torch.optim.SGD, momentum=0.9)
    report = tws.warm_start(model, _saved(old, old_optimizer), optimizer=optimizer)
    assert "no-optimizer-state" in [note.code for note in report.notes]
    assert not optimizer.state


def test_where_there_is_some_on_missing_decides():
    old, old_optimizer = _trained(torch.optim.RMSprop)
    model, optimizer = _fresh()
    with pytest.raises(tws.PlanError, match="is of RMSprop"):
        tws.warm_start(model, _saved(old, old_optimizer), optimizer=optimizer)
    settings = tws.WarmStartSettings(_saved(old, old_optimizer), on_missing="keep")
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert not optimizer.state
    assert "state-not-whole" in [note.code for note in report.notes]


def test_a_named_slot_is_asked_for_whatever_there_is():
    model, optimizer = _fresh(torch.optim.SGD, momentum=0.9)
    names = {"2.bias/momentum_buffer": "no.such"}
    settings = tws.WarmStartSettings(model.state_dict(), ".*", None, names)
    with pytest.raises(tws.PlanError, match=r"no\.such"):
        tws.warm_start(model, settings, optimizer=optimizer)


@pytest.mark.parametrize("selection", ["names", "tensors", None])
def test_slots_that_a_selection_leaves_behind_are_a_warning(selection):
    old, old_optimizer = _trained()
    model, optimizer = _fresh()
    vocab = {"2.weight": tws.ClipOrPad()} if selection is None else None
    chosen = {"names": ["2.weight$"], "tensors": [model[2].weight], None: None}[selection]
    settings = tws.WarmStartSettings(_saved(old, old_optimizer), chosen, vocab)
    report = tws.warm_start(model, settings, optimizer=optimizer)
    assert [note.code for note in report.notes] == ["slots-left-behind"]
    settings = tws.WarmStartSettings(old.state_dict(), chosen, vocab)
    assert tws.warm_start(model, settings, optimizer=optimizer).notes == ()


def test_slots_follow_the_vocabulary_of_a_parameter_that_a_str_selects():
    old = nn.Embedding(3, 2)
    old_optimizer = torch.optim.Adagrad(old.parameters(), initial_accumulator_value=0.5)
    old.weight.grad = torch.ones(3, 2)
    old_optimizer.step()
    model = nn.Embedding(3, 2)
    optimizer = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.25)
    vocab = {"weight": tws.VocabInfo(["c", "new", "a"], 3, 0, ["a", "b", "c"])}
    settings = tws.WarmStartSettings(_saved(old, old_optimizer), ".*", vocab)
    tws.warm_start(model, settings, optimizer=optimizer)
    assert optimizer.state[model.weight]["sum"].tolist() == [[1.5, 1.5], [0.25, 0.25], [1.5, 1.5]]
    assert optimizer.state[model.weight]["step"] == 1


def test_adagrad_begins_new_rows_as_it_was_made_whatever_a_group_says():
    """torch's own looks at the argument of the constructor, and not into its groups."""
    groups = [(w, [{"params": [w], "initial_accumulator_value": 0.75}]) for w in _two_tables()]
    (old, of_old), (new, of_new) = groups
    its = torch.optim.Adagrad(of_old, initial_accumulator_value=0.25)
    optimizer = torch.optim.Adagrad(of_new, initial_accumulator_value=0.25)
    model = nn.ParameterDict({"w": new})
    info = tws.VocabInfo(["a", "b"], old_vocab=["a"])
    state = {"model": {"w": old.detach()}, "optimizer": its.state_dict()}
    settings = tws.WarmStartSettings(state, ".*", {"w": info})
    tws.warm_start(model, settings, optimizer=optimizer)
    assert optimizer.state[new]["sum"].tolist() == [[0.25], [0.25]]


def _two_tables():
    return nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.zeros(2, 1))
