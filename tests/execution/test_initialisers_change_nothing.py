"""What an initialiser changes besides its rows is undone, and an error: whichever way it takes."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.errors import CallbackError
from torch_warmstart.model import Journal

OLD, NEW = ["a", "b"], ["a", "n"]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(2, 2)
        self.bn = nn.BatchNorm1d(2)
        self.ln = nn.LayerNorm(2)


def _run_batch_norm(model, _optimizer, _ema):
    model.bn(torch.full((8, 2), 5.0))


def _write_table(model, _optimizer, _ema):
    with torch.no_grad():
        model.e.weight.mul_(0)


def _write_other(model, _optimizer, _ema):
    model.ln.weight.data.fill_(9.0)


def _replace(model, _optimizer, _ema):
    model.ln.weight = nn.Parameter(torch.zeros(2))


def _freeze(model, _optimizer, _ema):
    model.requires_grad_(False)


def _add_to_gradients(model, _optimizer, _ema):
    with torch.enable_grad():
        model.ln(torch.ones(2, 2)).sum().backward()


def _write_state(_model, optimizer, _ema):
    next(iter(optimizer.state.values()))["exp_avg"].fill_(3.0)


def _write_copy(_model, _optimizer, ema):
    ema.ln.weight.data.fill_(9.0)


OF_MODEL = [_run_batch_norm, _write_table, _write_other, _replace, _freeze, _add_to_gradients]
WAYS = [*OF_MODEL, _write_state, _write_copy]


def _everything(model, optimizer, ema):
    state = [v for s in optimizer.state.values() for v in s.values()]
    parameters = list(model.parameters())
    training = [p.grad for p in parameters], [torch.tensor(p.requires_grad) for p in parameters]
    return copy.deepcopy([model.state_dict(), ema.state_dict(), state, *training])


def _same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    return len(one) == len(other) and all(map(_same, one, other))


def _trained():
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    loss = model.ln(model.e(torch.tensor([0, 1]))).pow(2).sum() + model.bn(torch.randn(4, 2)).sum()
    loss.backward()
    optimizer.step()
    return model, optimizer, copy.deepcopy(model)


def _info(begin):
    return tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=begin)


def _start(call, model, optimizer, ema, info):
    if call == "warm_start":
        old = {"e.weight": torch.ones(2, 2)}
        settings = tws.WarmStartSettings(old, "e.*", {"e.weight": info})
        tws.warm_start(model, settings)
    else:
        tws.change_vocabulary(model, {"e": info}, optimizer=optimizer, ema=ema)


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("kind", ["filler", "maker"])
@pytest.mark.parametrize(
    ("call", "way"),
    [*(("warm_start", way) for way in OF_MODEL), *(("change_vocabulary", way) for way in WAYS)],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_it_is_undone_and_told(call, way, kind, raises):
    model, optimizer, ema = _trained()
    before = _everything(model, optimizer, ema)
    weight = model.ln.weight

    def filler(tensor: torch.Tensor) -> torch.Tensor:
        way(model, optimizer, ema)
        if raises:
            raise ValueError("no")
        return tensor.fill_(1.0)

    def maker(new: tws.NewRows) -> torch.Tensor:
        return filler(torch.empty(len(new), new.width))

    info = _info({"filler": filler, "maker": maker}[kind])
    with pytest.raises(CallbackError, match="raised ValueError" if raises else "has changed"):
        _start(call, model, optimizer, ema, info)
    assert model.ln.weight is weight
    assert _same(_everything(model, optimizer, ema), before)


@pytest.mark.parametrize("call", ["warm_start", "change_vocabulary"])
def test_to_run_the_model_as_it_is_used_is_no_change(call):
    model, optimizer, ema = _trained()
    model.eval()

    def filler(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.copy_(model.bn(torch.ones(2, 2)))

    _start(call, model, optimizer, ema, _info(filler))
    assert torch.equal(model.e.weight[1], model.bn(torch.ones(2, 2))[1])


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.InstanceNorm1d, nn.SyncBatchNorm])
def test_a_journal_sees_the_statistics_of_a_norm(norm):
    model = nn.Sequential(norm(2, track_running_stats=True))
    before = copy.deepcopy(model.state_dict())
    journal = Journal(model)
    if norm is nn.SyncBatchNorm:
        model[0].train(False)
    with journal.mode:
        model(torch.randn(3, 2, 4))
    assert (len(journal) == 0) == (norm is nn.SyncBatchNorm)
    journal.restore()
    assert _same(model.state_dict(), before)


def _set_mode(model, _optimizer, _ema):
    model.eval()


def _set_attribute(model, _optimizer, _ema):
    model.bn.momentum = 0.9


def _listen(model, _optimizer, _ema):
    model.ln.register_forward_hook(print)


def _mark_tensor(model, _optimizer, _ema):
    model.ln.weight.seen = True


def _set_rate(_model, optimizer, _ema):
    optimizer.param_groups[0]["lr"] = 5.0
    optimizer.param_groups.append({"params": []})


def _set_mode_of_copy(_model, _optimizer, ema):
    ema.eval()


BESIDES = [_set_mode, _set_attribute, _listen, _mark_tensor, _set_rate, _set_mode_of_copy]


def _beside_tensors(model, optimizer, ema):
    modules = [*model.modules(), *ema.modules()]
    hooks = [len(module._forward_hooks) for module in modules]
    settings = [(module.training, getattr(module, "momentum", None)) for module in modules]
    rates = [group.get("lr") for group in optimizer.param_groups]
    return hooks, settings, rates, vars(model.ln.weight).copy()


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(
    ("call", "way"),
    [*(("warm_start", way) for way in BESIDES[:4]), *(("change_vocabulary", w) for w in BESIDES)],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_what_is_no_tensor_is_put_back(call, way, raises):
    model, optimizer, ema = _trained()
    before = _beside_tensors(model, optimizer, ema)

    def filler(tensor: torch.Tensor) -> torch.Tensor:
        way(model, optimizer, ema)
        if raises:
            raise ValueError("no")
        return tensor.fill_(1.0)

    with pytest.raises(CallbackError, match="ValueError") if raises else nullcontext():
        _start(call, model, optimizer, ema, _info(filler))
    assert _beside_tensors(model, optimizer, ema) == before


def test_the_rates_of_an_optimizer_that_comes_along_are_put_back():
    model, optimizer, _ = _trained()
    old = {"model": copy.deepcopy(model.state_dict()), "optimizer": optimizer.state_dict()}

    def filler(tensor: torch.Tensor) -> torch.Tensor:
        optimizer.param_groups[0]["lr"] = 5.0
        return tensor.fill_(1.0)

    settings = tws.WarmStartSettings(old, "e.*", {"e.weight": _info(filler)})
    tws.warm_start(model, settings, optimizer=optimizer)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert model.e.weight[1].tolist() == [1.0, 1.0]
