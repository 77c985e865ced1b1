"""Models of very many small variables, without vocabularies."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from case import (
    OURS,
    Benchmark,
    Case,
    Contender,
    Parameters,
    Prepared,
    Sizes,
    Summary,
    Verdict,
    at_least,
)

if TYPE_CHECKING:
    import torch

_SIZES, _QUICK = (10_000, 50_000), (20,)
_IN_ONE = 100  # layers of a block
_AS_FAST = 0.8  # of load_file and load_state_dict


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    import safetensors.torch
    import torch

    torch.manual_seed(3)
    model = _new_model(case)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    safetensors.torch.save_file(model.state_dict(), _checkpoint(folder))
    return {"sha256": _digest(model)}


def _checkpoint(folder: Path) -> Path:
    return folder / "model.safetensors"


def _new_model(case: Parameters) -> torch.nn.Module:
    """Blocks of layers of 8 by 8 numbers."""
    import torch

    blocks = torch.nn.ModuleDict()
    for first in range(0, case["variables"], _IN_ONE):
        layers = (
            torch.nn.Linear(8, 8, bias=False)
            for _ in range(first, min(first + _IN_ONE, case["variables"]))
        )
        blocks[f"block_{first // _IN_ONE}"] = torch.nn.ModuleList(layers)
    return blocks


def _digest(model: torch.nn.Module) -> str:
    whole = hashlib.sha256()
    for parameter in model.parameters():
        whole.update(parameter.detach().numpy())
    return whole.hexdigest()


def _prepare(case: Parameters, folder: Path, run: Callable[[torch.nn.Module], object]) -> Prepared:
    model = _new_model(case)
    return Prepared(lambda: run(model), lambda: _digest(model), [_checkpoint(folder)])


def _prepare_ours(case: Parameters, folder: Path) -> Prepared:
    import torch_warmstart as tws

    return _prepare(case, folder, lambda model: tws.warm_start(model, _checkpoint(folder)))


def _prepare_safetensors(case: Parameters, folder: Path) -> Prepared:
    import safetensors.torch

    def run(model: torch.nn.Module) -> None:
        model.load_state_dict(safetensors.torch.load_file(_checkpoint(folder)))

    return _prepare(case, folder, run)


_CONTENDERS = {
    OURS: Contender("ours, from safetensors", _prepare_ours, ("safetensors",)),
    "safetensors": Contender(
        "safetensors `load_file`, then load", _prepare_safetensors, ("safetensors",)
    ),
}


def _name(variables: int) -> str:
    return f"{variables:,} variables"


def _cases(sizes: Sizes) -> list[Case]:
    return [
        Case(_name(count), {"variables": count}, tuple(_CONTENDERS), folder=str(count))
        for count in (_QUICK if sizes.quick else _SIZES)
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    return [
        at_least(
            f"{_name(count)}: safetensors' time at least {_AS_FAST} x ours",
            summaries[_name(count)].times_faster("safetensors"),
            _AS_FAST,
        )
        for count in _SIZES
        if _name(count) in summaries
    ]


BENCHMARK = Benchmark(
    title="Very many small variables",
    about="float32 tensors of 8 by 8 from one safetensors file into a model whose parameters "
    "exist, all names the same on both sides.",
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=lambda _case: {"variables": 2},
    beyond="beyond the model",
)
