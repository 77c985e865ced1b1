"""What is said of names that are not found: proposals, and errors."""

from __future__ import annotations

from collections.abc import Mapping
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
    at_most,
)

if TYPE_CHECKING:
    import torch

_SIZES, _QUICK = (2_000, 10_000), (20,)
_GROWTH, _SECONDS = 7, 2  # from one size to the next, which is five times as large
_ERROR = "error"


def _make(_case: Parameters, _folder: Path) -> dict[str, Any]:
    """Nothing is read: the state is in memory."""
    return {"sha256": "done"}


def _model_and_state(case: Parameters) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """Blocks of layers, each of a width of its own, and a state that calls them otherwise."""
    import torch

    model, state = torch.nn.ModuleDict(), {}
    for at in range(case["variables"]):
        width = 2 + at % 50
        model[f"block{at}"] = torch.nn.ModuleDict(
            {"dense": torch.nn.Linear(width, width, bias=False)}
        )
        state[f"stage/unit_{at}/fc/weights"] = torch.zeros(width, width)
    return model, state


def _prepare_proposals(case: Parameters, _folder: Path) -> Prepared:
    import torch_warmstart as tws

    model, state = _model_and_state(case)
    done: list[str] = []

    def run() -> None:
        suggestions = tws.suggest_names(model, state)
        done.append("done" if len(suggestions.items) == len(state) else "some are missing")

    return Prepared(run, lambda: done[0])


def _prepare_error(case: Parameters, _folder: Path) -> Prepared:
    import torch_warmstart as tws

    model, state = _model_and_state(case)
    done: list[str] = []

    def run() -> None:
        try:
            tws.warm_start(model, state)
        except tws.PlanError as error:
            done.append("done" if str(error) else "it says nothing")

    return Prepared(run, lambda: done[0])


_CONTENDERS = {
    OURS: Contender("`suggest_names`", _prepare_proposals),
    _ERROR: Contender("an error about names not found", _prepare_error),
}


def _name(count: int) -> str:
    return f"{count:,} variables"


def _cases(sizes: Sizes) -> list[Case]:
    return [
        Case(_name(count), {"variables": count}, tuple(_CONTENDERS), folder="names")
        for count in (_QUICK if sizes.quick else _SIZES)
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    times = [summaries[_name(n)].seconds(OURS) for n in _SIZES if _name(n) in summaries]
    verdicts = []
    if len(times) == len(_SIZES) and all(times):
        grown = (times[-1] or 0) / (times[0] or 1)
        target = f"{_SIZES[-1]:,} variables: at most {_GROWTH} x the time of {_SIZES[0]:,}"
        verdicts.append(at_most(target, grown, _GROWTH))
    if _name(_SIZES[0]) in summaries:
        target = f"an error about {_SIZES[0]:,} names: at most {_SECONDS} s of CPU time"
        seconds = summaries[_name(_SIZES[0])].cpu_seconds(_ERROR)
        verdicts.append(at_most(target, seconds, _SECONDS, "s"))
    return verdicts


BENCHMARK = Benchmark(
    title="Names that are not found",
    about="Linear layers in 50 widths, of which a state in memory has all under other names.",
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
)
