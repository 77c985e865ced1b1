"""Models drawn at random, a checkpoint for each, and what a slow loop says it becomes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import VocabInfo, WarmStartSettings

_DIM = 3


class Doubling(nn.Linear):
    """Loads twice what it gets."""

    def _load_from_state_dict(self, state, prefix, *rest):
        if f"{prefix}weight" in state:
            state[f"{prefix}weight"] = state[f"{prefix}weight"] * 2
        super()._load_from_state_dict(state, prefix, *rest)


class Extra(nn.Linear):
    """Has something beside its tensors."""

    notes = ("as it was",)

    def get_extra_state(self):
        return self.notes

    def set_extra_state(self, state):
        self.notes = state


class Vectors(nn.Module):
    """Two parameters in one piece of memory."""

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = nn.Parameter(one), nn.Parameter(other)


@dataclass
class Case:
    """A model with its checkpoint, settings, and what a slow loop makes of it."""

    model: nn.Module
    optimizer: torch.optim.Optimizer | None
    source: dict[str, object]
    settings: WarmStartSettings
    expected: dict[str, torch.Tensor] = field(default_factory=dict)
    copied: set[str] = field(default_factory=set)  # what may be called that
    contradicts: bool = False


def draw(seed: int) -> Case:
    """The same for the same seed."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    model = nn.Module()
    case = Case(model, None, {}, WarmStartSettings({}))
    infos: dict[str, VocabInfo] = {}
    _linear(case, infos, "first", rng)
    for at in range(rng.randint(1, 5)):
        _KINDS[rng.choice(list(_KINDS))](case, infos, f"m{at}", rng)
    for parameter in model.parameters():
        parameter.requires_grad_(rng.random() < 0.8)
    if rng.random() < 0.5 and any(True for _ in model.parameters()):
        case.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    case.settings = WarmStartSettings(case.source, [".*"], infos, on_missing="keep")
    return case


def _take(case: Case, name: str, target: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    value = torch.randn(target.shape)
    case.source[name] = value
    case.expected[name] = value * factor
    if factor == 1:
        case.copied.add(name)
    return value


def _module(case: Case, name: str, module: nn.Module, factor: float = 1.0) -> nn.Module:
    case.model.add_module(name, module)
    for leaf, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            _take(case, f"{name}.{leaf}", tensor, factor if leaf == "weight" else 1.0)
    return module


def _linear(case, infos, name, rng):
    _module(case, name, rng.choice([nn.Linear(_DIM, _DIM), nn.BatchNorm1d(_DIM)]))


def _missing(case, infos, name, rng):
    case.model.add_module(name, nn.Linear(_DIM, _DIM))


def _table(case, infos, name, rng):
    old, new = [str(i) for i in range(rng.randint(2, 7))], [str(i) for i in range(9)]
    rng.shuffle(new)
    new = new[: rng.randint(1, 8)]
    table = nn.Embedding(len(new), _DIM)
    case.model.add_module(name, table)
    keep = rng.random() < 0.5
    infos[f"{name}.weight"] = VocabInfo(new, -1, 0, old, -1, "keep" if keep else None)
    value = torch.randn(len(old), _DIM)
    case.source[f"{name}.weight"] = value
    rows = []
    for at, entry in enumerate(new):
        absent = table.weight[at].detach().clone() if keep else torch.zeros(_DIM)
        rows.append(value[old.index(entry)] if entry in old else absent)
    case.expected[f"{name}.weight"] = torch.stack(rows)
    kind = rng.choice(["", "double", "drop", "post"])
    if kind == "double":
        table.register_load_state_dict_pre_hook(_double)
        case.expected[f"{name}.weight"] = case.expected[f"{name}.weight"] * 2
    elif kind == "drop":
        table.register_load_state_dict_pre_hook(_drop)
        del case.expected[f"{name}.weight"]
    elif kind == "post":
        table.register_load_state_dict_post_hook(lambda module, keys: None)


def _double(module, state, prefix, *rest):
    state[f"{prefix}weight"].mul_(2)


def _drop(module, state, prefix, *rest):
    del state[f"{prefix}weight"]


def _doubling(case, infos, name, rng):
    _module(case, name, Doubling(_DIM, _DIM), 2.0)


def _extra(case, infos, name, rng):
    _module(case, name, Extra(_DIM, _DIM))
    case.source[f"{name}._extra_state"] = ("as it was",)


def _tied(case, infos, name, rng):
    first, second = nn.Embedding(_DIM, _DIM), nn.Linear(_DIM, _DIM, bias=False)
    second.weight = first.weight
    case.model.add_module(name, nn.Sequential(first, second))
    value = _take(case, f"{name}.0.weight", first.weight)
    case.expected[f"{name}.1.weight"] = value
    case.copied.add(f"{name}.1.weight")


def _normed(case, infos, name, rng):
    module = nn.utils.parametrizations.weight_norm(nn.Linear(_DIM, _DIM))
    _module(case, name, module)


def _expanded(case, infos, name, rng):
    module = nn.Module()
    module.fixed = nn.Parameter(torch.zeros(1, _DIM).expand(2, _DIM))
    case.model.add_module(name, module)


def _overlapping(case, infos, name, rng):
    memory = torch.randn(6)
    module = Vectors(memory[:4], memory[2:])
    case.model.add_module(name, module)
    whole = torch.randn(6)
    one, other = whole[:4].clone(), whole[2:].clone()
    if rng.random() < 0.3:
        other[0] += 1
        case.contradicts = True
    for leaf, value in (("one", one), ("other", other)):
        case.source[f"{name}.{leaf}"] = case.expected[f"{name}.{leaf}"] = value
        case.copied.add(f"{name}.{leaf}")


_KINDS = {
    "linear": _linear,
    "missing": _missing,
    "table": _table,
    "doubling": _doubling,
    "extra": _extra,
    "tied": _tied,
    "normed": _normed,
    "expanded": _expanded,
    "overlapping": _overlapping,
}


def held(case: Case) -> dict[str, torch.Tensor]:
    """All of the model's tensors, by name, as copies."""
    named = [*case.model.named_parameters(remove_duplicate=False), *case.model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}


def run(case: Case) -> tws.WarmStartReport:
    """Warm-starts it."""
    return tws.warm_start(case.model, case.settings, optimizer=case.optimizer)
