"""A table with what Adam keeps of it, through a vocabulary change: against the table alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

from suite import vocab

_ROWS, _QUICK, _COLUMNS = 2_000_000, 20_000, 64
_MOST = 2  # times the table alone, the slowest run
_SLOTS = ("Adam", "Adam_1")  # TensorFlow's names of the moments
_POWERS = {"beta1_power": 0.9, "beta2_power": 0.999}


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    import checkpoints
    import numpy as np
    from tokens import TokenChange, digest

    change = TokenChange(case["rows"], case["rows"], case["overlap"])
    change.write(folder)
    rng = np.random.default_rng(change.seed)
    shape = (case["rows"], case["dim"])
    keys = [vocab.KEY, *(f"{vocab.KEY}/{slot}" for slot in _SLOTS)]
    tensors = {key: rng.random(shape, dtype=np.float32) for key in keys}
    powers = {name: np.float32(value) for name, value in _POWERS.items()}
    written_by = checkpoints.write_checkpoint(folder, {**tensors, **powers})
    rows, digests = change.remapping, []
    for key in keys:
        moved = tensors.pop(key)[np.maximum(rows, 0)]
        moved[rows < 0] = 0
        digests.append(digest(moved))
    _moments(folder).write_text("\n".join(digests[1:]))
    return {"checkpoint_by": written_by, "sha256": digests[0]}


def _moments(folder: Path) -> Path:
    """Where the digests of the moments are, as they have to be."""
    return folder / "moments.txt"


def _prepare(case: Parameters, folder: Path, *, with_slots: bool) -> Prepared:
    import checkpoints
    import torch
    from tokens import digest, new_vocab, old_vocab

    import torch_warmstart as tws

    model = torch.nn.ModuleDict({"item_embedding": torch.nn.Embedding(case["rows"], case["dim"])})
    optimizer = torch.optim.Adam(model.parameters()) if with_slots else None
    info = tws.VocabInfo(new_vocab(folder), case["rows"], 0, old_vocab(folder))

    def run() -> None:
        settings = tws.WarmStartSettings(
            checkpoints.prefix(folder), var_name_to_vocab_info={"item_embedding.weight": info}
        )
        tws.warm_start(model, settings, optimizer=optimizer)

    def result() -> str:
        table = model["item_embedding"].weight
        if optimizer is not None:
            slots = optimizer.state[table]
            found = [digest(slots[name].numpy()) for name in ("exp_avg", "exp_avg_sq")]
            if found != _moments(folder).read_text().split():
                return "the moments differ"
        return digest(table.detach().numpy())

    made = 2 * case["rows"] * case["dim"] * 4 if with_slots else 0
    return Prepared(run, result, vocab.input_files(folder), made)


def _prepare_slots(case: Parameters, folder: Path) -> Prepared:
    return _prepare(case, folder, with_slots=True)


def _prepare_plain(case: Parameters, folder: Path) -> Prepared:
    return _prepare(case, folder, with_slots=False)


_PLAIN = "plain"
_CONTENDERS = {
    OURS: Contender("ours, with Adam's moments", _prepare_slots),
    _PLAIN: Contender("ours, the table alone", _prepare_plain),
}


def _cases(sizes: Sizes) -> list[Case]:
    return [
        Case(
            vocab.case_name(rows, _COLUMNS),
            vocab.parameters(rows, _COLUMNS),
            tuple(_CONTENDERS),
            folder=str(rows),
        )
        for rows in sizes.rows or [_QUICK if sizes.quick else _ROWS]
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    name = vocab.case_name(_ROWS, _COLUMNS)
    if name not in summaries:
        return []
    found = summaries[name]
    runs, plain = [run["seconds"] for run in found.runs.get(OURS, ())], found.seconds(_PLAIN)
    target = f"{name}: the slowest run at most {_MOST} x the table alone"
    return [at_most(target, max(runs) / plain if runs and plain else None, _MOST)]


BENCHMARK = Benchmark(
    title="A table with an optimizer's slots",
    about="As the warm start through a vocabulary change, with Adam's two moments of the table, "
    "which the optimizer does not have before; against the table alone.",
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=vocab.toy,
)
