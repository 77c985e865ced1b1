"""Models, optimizers and checkpoints of the tests of slots."""

from __future__ import annotations

import torch
from torch import nn

from torch_warmstart import VocabInfo

OLD = ["apple", "banana", "guava", "orange", "plum"]
NEW = ["orange", "fig", "apple", "plum", "kiwi", "pear"]
SHARED = ["orange", "apple", "plum"]
ALL = [".*"]


class Words(nn.Module):
    """Scores words; everything has two dimensions, as Muon wants it."""

    def __init__(self, words, *, sparse=False, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(words, 4, sparse=sparse)
        if not sparse:
            self.out = nn.Linear(4, 3, bias=False)

    def forward(self, ids):
        rows = self.embed(ids)
        return self.out(rows) if hasattr(self, "out") else rows


def _optimizers():
    """Every optimizer of torch that has a state by parameter, with the options that change it."""
    optim = torch.optim
    made = {
        "adam": lambda p: optim.Adam(p, lr=0.05),
        "adam-amsgrad": lambda p: optim.Adam(p, lr=0.05, amsgrad=True, weight_decay=0.1),
        "adam-foreach": lambda p: optim.Adam(p, lr=0.05, foreach=True),
        "adam-fused": lambda p: optim.Adam(p, lr=0.05, fused=True),
        "adam-tensor-lr": lambda p: optim.Adam(p, lr=torch.tensor(0.05), foreach=False),
        "adamw": lambda p: optim.AdamW(p, lr=0.05),
        "adamw-fused": lambda p: optim.AdamW(p, lr=0.05, fused=True, amsgrad=True),
        "adamw-maximize": lambda p: optim.AdamW(p, lr=0.05, maximize=True),
        "sgd-momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
        "sgd-nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
        "sgd-dampening": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, dampening=0.5),
        "sgd-fused": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, fused=True),
        "adagrad": lambda p: optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.25),
        "adagrad-fused": lambda p: optim.Adagrad(p, lr=0.05, fused=True),
        "adadelta": optim.Adadelta,
        "rmsprop": lambda p: optim.RMSprop(p, lr=0.05),
        "rmsprop-all": lambda p: optim.RMSprop(p, lr=0.05, centered=True, momentum=0.9),
        "nadam": lambda p: optim.NAdam(p, lr=0.05),
        "radam": lambda p: optim.RAdam(p, lr=0.05),
        "adamax": lambda p: optim.Adamax(p, lr=0.05),
        "adafactor": lambda p: optim.Adafactor(p, lr=0.05),
        "rprop": lambda p: optim.Rprop(p, lr=0.05),
        "asgd": lambda p: optim.ASGD(p, lr=0.05, lambd=0.5, t0=2),
        "sparse-adam": lambda p: optim.SparseAdam(p, lr=0.05),
    }
    if hasattr(optim, "Muon"):
        made["muon"] = lambda p: optim.Muon(p, lr=0.05)
    return made


OPTIMIZERS = _optimizers()


def build(name, words, *, seed=0, device="cpu"):
    model = Words(words, sparse=name == "sparse-adam", seed=seed).to(device)
    return model, OPTIMIZERS[name](model.parameters())


def train(model, optimizer, vocabulary, steps, seed=0):
    """Trains on shared words only, the same ones whatever their ids."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    for _ in range(steps):
        words = torch.randint(len(SHARED), (6,), generator=generator)
        ids = torch.tensor([vocabulary.index(SHARED[n]) for n in words], device=device)
        loss = (model(ids) - words.to(device)[:, None]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def vocab_info(**changes):
    fields = {"new_vocab": NEW, "new_vocab_size": -1, "num_oov_buckets": 0, "old_vocab": OLD}
    return VocabInfo(**{**fields, **changes})


def saved(model, optimizer):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def moved(tensor, start=0.0):
    """The oracle: rows of the old vocabulary, moved to where the new one has their words."""
    out = torch.full((len(NEW), *tensor.shape[1:]), start, dtype=tensor.dtype)
    for at, word in enumerate(NEW):
        if word in OLD:
            out[at] = tensor[OLD.index(word)]
    return out


def state_of(optimizer, parameter):
    return optimizer.state[parameter]


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and a.device == b.device
    return a == b and type(a) is type(b)


def assert_same_state(optimizer, other):
    state, expected = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert state.keys() == expected.keys()
    for at, slots in expected.items():
        assert state[at].keys() == slots.keys()
        for slot, value in slots.items():
            assert same(state[at][slot], value), (at, slot)
