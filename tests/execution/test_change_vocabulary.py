"""A live model gets another vocabulary: rows, ties, sizes and slots against slow loops."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import VocabInfo

OLD = ["a", "<pad>", "b", "d"]
NEW = ["d", "x", "b", "y", "<pad>"]
INFO = VocabInfo(NEW, old_vocab=OLD)


class Tied(nn.Module):
    """An embedding whose weight is the head's too; the head has a bias."""

    def __init__(self, padding_idx: int | None = 1) -> None:
        super().__init__()
        self.tok = nn.Embedding(4, 3, padding_idx=padding_idx)
        self.body = nn.Linear(3, 3)
        self.head = nn.Linear(3, 4)
        self.head.weight = self.tok.weight

    def forward(self, ids):
        return self.head(self.body(self.tok(ids)))


def by_entry(old: torch.Tensor, start: float | torch.Tensor = 0.0) -> torch.Tensor:
    """The specification: each new row is that of its entry, or begins anew."""
    rows = []
    for at, entry in enumerate(NEW):
        begin = start[at] if isinstance(start, torch.Tensor) else torch.full_like(old[0], start)
        rows.append(old[OLD.index(entry)] if entry in OLD else begin)
    return torch.stack(rows)


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    size = model.tok.num_embeddings
    model(torch.arange(size)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_ties_sizes_and_the_row_for_padding_follow():
    model = Tied()
    before, bias = model.tok.weight.detach().clone(), model.head.bias.detach().clone()
    body = model.body.weight
    model.tok.weight.requires_grad_(False)
    model.tok.weight.mark = "theirs"
    report = tws.change_vocabulary(model, {"tok.weight": INFO})
    assert model.tok.weight is model.head.weight
    assert isinstance(model.tok.weight, nn.Parameter)
    assert not model.tok.weight.requires_grad
    assert model.tok.weight.mark == "theirs"
    assert (model.tok.num_embeddings, model.head.out_features, model.head.in_features) == (5, 5, 3)
    assert model.tok.padding_idx == NEW.index("<pad>")
    assert model.body.weight is body
    assert torch.equal(model.tok.weight, by_entry(before))
    assert torch.equal(model.head.bias, by_entry(bias))
    assert report["tok.weight"].rows.copied == 3
    assert report["head.weight"] is report["tok.weight"]
    assert model(torch.arange(5)).shape == (5, 5)


@pytest.mark.parametrize(
    ("make", "starts"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), {"momentum_buffer": 0.0}),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), {"exp_avg": 0.0, "max_exp_avg_sq": 0.0}),
        (lambda p: torch.optim.Adagrad(p, initial_accumulator_value=0.25), {"sum": 0.25}),
        (lambda p: torch.optim.Adafactor(p, lr=0.1), {"row_var": 0.0}),
    ],
    ids=["SGD", "AdamW", "Adagrad", "Adafactor"],
)
def test_the_state_of_an_optimizer_follows(make, starts):
    model = Tied()
    optimizer = make([{"params": [*model.body.parameters()]}, {"params": [model.tok.weight]}])
    group = optimizer.param_groups[1]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    step(model, optimizer)
    old = model.tok.weight
    before = copy.deepcopy(dict(optimizer.state[old]))
    body = dict(optimizer.state[model.body.weight])
    tws.change_vocabulary(model, {"tok.weight": INFO}, optimizer=optimizer)
    assert optimizer.param_groups[1] is group
    assert group["params"][0] is model.tok.weight
    assert old not in optimizer.state
    after = optimizer.state[model.tok.weight]
    assert list(after) == list(before)
    for name, value in before.items():
        if name in starts:
            assert torch.equal(after[name], by_entry(value, starts[name])), name
        elif value.shape == old.shape:
            assert torch.equal(after[name], by_entry(value)), name
        else:  # the count of steps, averages over rows
            assert torch.equal(after[name], value), name
    now = optimizer.state[model.body.weight]
    assert all(now[name] is value for name, value in body.items())
    step(model, optimizer)
    scheduler.step()
    assert optimizer.param_groups[1]["lr"] < scheduler.base_lrs[1]


def test_an_optimizer_that_has_not_stepped_goes_on():
    model = Tied()
    optimizer = torch.optim.Adam(model.named_parameters())
    tws.change_vocabulary(model, {"tok.weight": INFO}, optimizer=optimizer)
    held = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    assert {id(t) for t in held} == {id(p) for p in model.parameters()}
    assert not optimizer.state
    step(model, optimizer)


def test_one_of_several_optimizers_has_it():
    model = Tied()
    dense = torch.optim.Adam(model.body.parameters())
    sparse = torch.optim.Adagrad([model.tok.weight])
    tws.change_vocabulary(model, {"tok.weight": INFO}, optimizer=[dense, sparse])
    assert sparse.param_groups[0]["params"][0] is model.tok.weight
    assert [*sparse.state] == [model.tok.weight]


def test_a_class_head_by_its_modules_name():
    model = nn.Sequential(nn.Linear(2, 4))
    weight, bias = model[0].weight.detach().clone(), model[0].bias.detach().clone()
    info = VocabInfo(NEW, old_vocab=OLD, backup_initializer=nn.init.ones_)
    tws.change_vocabulary(model, {"0": info})
    assert torch.equal(model[0].weight, by_entry(weight, 1.0))
    assert torch.equal(model[0].bias, by_entry(bias, 1.0))
    assert model[0].out_features == 5


def test_columns_and_buffers_change_too():
    model = nn.Sequential(nn.Linear(4, 2))
    model.register_buffer("counts", torch.tensor([1, 2, 3, 4]))
    weight = model[0].weight.detach().clone()
    columns = VocabInfo(NEW, old_vocab=OLD, axis=-1)
    tws.change_vocabulary(model, {"0.weight": columns, "counts": INFO})
    assert torch.equal(model[0].weight, by_entry(weight.T).T)
    assert (model[0].in_features, model[0].out_features) == (5, 2)
    assert model.counts.tolist() == [4, 0, 3, 0, 2]
    assert "counts" in dict(model.named_buffers())


@pytest.mark.parametrize("kind", ["averaged", "module", "mapping"])
def test_averages_keep_their_own_rows_and_new_ones_are_the_models(kind):
    torch.manual_seed(3)
    model = Tied()
    ema = torch.optim.swa_utils.AveragedModel(model) if kind == "averaged" else Tied()
    inner = ema.module if kind == "averaged" else ema
    with torch.no_grad():
        inner.tok.weight.add_(1)
    if kind == "mapping":
        ema = {name: tensor.detach().clone() for name, tensor in inner.named_parameters()}
    before = inner.tok.weight.detach().clone()
    info = VocabInfo(NEW, old_vocab=OLD, backup_initializer=nn.init.normal_)
    tws.change_vocabulary(model, {"tok.weight": info}, ema=ema)
    wanted = by_entry(before, model.tok.weight.detach())
    found = ema["tok.weight"] if kind == "mapping" else inner.tok.weight
    assert torch.equal(found, wanted)
    assert found is not model.tok.weight
    if kind != "mapping":
        assert inner.tok.weight is inner.head.weight
        assert (inner.tok.num_embeddings, inner.tok.padding_idx) == (5, 4)
    if kind == "averaged":
        ema.update_parameters(model)


def test_new_rows_are_the_same_as_those_of_a_warm_start():
    old, new = nn.Embedding(4, 3), nn.Embedding(5, 3)
    tws.warm_start(new, tws.WarmStartSettings(old.state_dict(), ".*", {"weight": INFO}))
    tws.change_vocabulary(old, {"weight": INFO})
    assert torch.equal(old.weight, new.weight)


def _language_model():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=6, n_positions=16, n_embd=8, n_layer=1, n_head=2, bos_token_id=4, eos_token_id=5
    )
    return transformers.GPT2LMHeadModel(config).eval()


def test_a_language_model_generates_with_another_vocabulary():
    model = _language_model()
    ids = torch.tensor([[0, 1, 2]])
    before = model(ids).logits
    old = ["a", "b", "c", "d", "<b>", "<e>"]
    new = ["<e>", "c", "z", "b", "<b>", "a", "y"]
    name = "transformer.wte.weight"
    tws.change_vocabulary(model, {name: VocabInfo(new, old_vocab=old)})
    assert model.lm_head.weight is model.transformer.wte.weight
    assert (model.config.vocab_size, model.lm_head.out_features) == (7, 7)
    for config in (model.config, model.generation_config):
        assert (config.bos_token_id, config.eos_token_id) == (4, 0)
    after = model(torch.tensor([[5, 3, 1]])).logits
    shared = [entry for entry in new if entry in old]
    at_new, at_old = [new.index(e) for e in shared], [old.index(e) for e in shared]
    assert torch.allclose(after[..., at_new], before[..., at_old], atol=1e-6)
    assert model.generate(torch.tensor([[5, 3]]), max_new_tokens=3).shape[0] == 1
    assert model(torch.tensor([[6, 5]]), labels=torch.tensor([[6, 5]])).loss.isfinite()


def test_a_token_that_is_gone_is_warned_of():
    model = _language_model()
    info = VocabInfo(["a", "<b>"], old_vocab=["a", "b", "c", "d", "<b>", "<e>"])
    with pytest.warns(tws.WarmStartWarning, match="eos_token_id=5 of the model's config"):
        report = tws.change_vocabulary(model, {"transformer.wte.weight": info})
    assert [note.code for note in report.notes] == ["token-id-left"]
    assert (model.config.eos_token_id, model.config.bos_token_id) == (5, 1)


class Own(torch.optim.Optimizer):
    """Nobody's but the test's: a sum of gradients and a plain count."""

    def __init__(self, parameters) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self):
        for parameter in self.param_groups[0]["params"]:
            if parameter.grad is not None:
                state = self.state[parameter]
                state["total"] = state.get("total", torch.zeros_like(parameter)) + parameter.grad
                state["count"] = state.get("count", 0) + 1


def test_the_state_of_an_optimizer_that_nobody_knows_follows():
    table = nn.Embedding(4, 3)
    model = nn.ModuleDict({"one": table, "other": table})
    optimizer = Own(model.parameters())
    table.weight.grad = torch.rand(4, 3)
    optimizer.step()
    before = optimizer.state[table.weight]["total"].clone()
    tws.change_vocabulary(model, {"other.weight": INFO}, optimizer=optimizer)
    after = optimizer.state[model["one"].weight]
    assert torch.equal(after["total"], by_entry(before))
    assert after["count"] == 1
    assert type(after["count"]) is int
