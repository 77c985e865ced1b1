"""A table of float64 in the file and bfloat16 in the model, through a vocabulary change."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from case import (
    MIB,
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
    at_most,
)

from suite.vocab import OVERLAP

if TYPE_CHECKING:
    import torch

_ROWS, _QUICK, _COLUMNS = 500_000, 2_000, 64
_FASTER, _MEBIBYTES = 1.2, 64
_BEST_OF = ("polars", "dict")


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    import numpy as np
    import safetensors.torch
    import torch
    from tokens import TokenChange

    change = TokenChange(case["rows"], case["rows"], OVERLAP)
    change.write(folder)
    table = torch.from_numpy(np.random.default_rng(4).standard_normal((case["rows"], _COLUMNS)))
    safetensors.torch.save_file({"table.weight": table}, _checkpoint(folder))
    rows = torch.from_numpy(change.remapping)
    found = table.to(torch.bfloat16)[rows.clamp(min=0)]
    found[rows < 0] = 0
    return {"sha256": _digest(found)}


def _checkpoint(folder: Path) -> Path:
    return folder / "model.safetensors"


def _digest(table: torch.Tensor) -> str:
    import torch

    return hashlib.sha256(table.detach().view(torch.int16).numpy()).hexdigest()


def _prepare(
    case: Parameters, folder: Path, run: Callable[[torch.nn.ModuleDict], object]
) -> Prepared:
    import torch
    from tokens import new_vocab, old_vocab

    table = torch.nn.Embedding(case["rows"], _COLUMNS, dtype=torch.bfloat16)
    model = torch.nn.ModuleDict({"table": table})
    files = [new_vocab(folder), old_vocab(folder), _checkpoint(folder)]
    return Prepared(lambda: run(model), lambda: _digest(table.weight), files)


def _prepare_ours(case: Parameters, folder: Path) -> Prepared:
    from tokens import new_vocab, old_vocab

    import torch_warmstart as tws

    def run(model: torch.nn.ModuleDict) -> None:
        info = tws.VocabInfo(new_vocab(folder), old_vocab=old_vocab(folder))
        settings = tws.WarmStartSettings(
            _checkpoint(folder), var_name_to_vocab_info={"table.weight": info}
        )
        tws.warm_start(model, settings)

    return _prepare(case, folder, run)


def _by_hand(case: Parameters, folder: Path, look_up: Callable[[Path], Any]) -> Prepared:
    import safetensors.torch
    import torch

    def run(model: torch.nn.ModuleDict) -> None:
        old = safetensors.torch.load_file(_checkpoint(folder))["table.weight"]
        rows = torch.from_numpy(look_up(folder))
        is_found = rows >= 0
        weight = model["table"].weight
        with torch.no_grad():
            weight.zero_()
            weight[is_found] = old[rows[is_found]].to(weight.dtype)

    return _prepare(case, folder, run)


def _prepare_polars(case: Parameters, folder: Path) -> Prepared:
    from lookups import with_polars

    return _by_hand(case, folder, with_polars())


def _prepare_dict(case: Parameters, folder: Path) -> Prepared:
    from lookups import with_dict

    return _by_hand(case, folder, with_dict())


_CONTENDERS = {
    OURS: Contender("ours", _prepare_ours, ("safetensors",)),
    "polars": Contender("Polars join, torch copy", _prepare_polars, ("polars",)),
    "dict": Contender("dict, torch copy", _prepare_dict, ("safetensors",)),
}


def _name(rows: int) -> str:
    return f"{rows:,} x {_COLUMNS}"


def _cases(sizes: Sizes) -> list[Case]:
    rows = _QUICK if sizes.quick else _ROWS
    return [Case(_name(rows), {"rows": rows}, tuple(_CONTENDERS), folder=str(rows))]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    summary = summaries.get(_name(_ROWS))
    if not summary:
        return []
    beyond = summary.beyond(OURS)
    return [
        at_least(
            f"at least {_FASTER} x faster than the best by hand",
            summary.times_faster(*_BEST_OF),
            _FASTER,
        ),
        at_most(
            f"at most {_MEBIBYTES} MiB beyond the model",
            None if beyond is None else beyond / MIB,
            _MEBIBYTES,
            "MiB",
        ),
    ]


BENCHMARK = Benchmark(
    title="Another dtype",
    about=(
        "A table of float64 in a safetensors file, of bfloat16 in the model, with a vocabulary of "
        f"which {OVERLAP:.0%} is the old one's. By hand means that join, one indexed copy, cast."
    ),
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=lambda _case: {"rows": 100},
    beyond="beyond the model",
)
