"""Many small tables in one start, each with vocabularies of its own, as recommenders have them."""

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

from suite.vocab import OVERLAP

if TYPE_CHECKING:
    import torch

# Tables, and rows of all of them together.
_SIZES = ((26, 1_100_000), (200, 1_000_000), (1_000, 1_000_000))
_QUICK = ((3, 600),)
_COLUMNS = 16
_FASTER = 1.5  # than the best of these, with and without the imports of the first call
_THAN_TF = {26: 25, 200: 20, 1_000: 12}
_BEST_OF = ("polars", "dict")
_FIRST = "ours_first"


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    import checkpoints
    import numpy as np
    import safetensors.torch
    import torch
    from tokens import TokenChange

    rng = np.random.default_rng(2)
    state, whole = {}, hashlib.sha256()
    for at in range(case["tables"]):
        change = TokenChange(case["rows"], case["rows"], OVERLAP, seed=at + 1)
        (folder / str(at)).mkdir()
        change.write(folder / str(at))
        table = rng.standard_normal((case["rows"], _COLUMNS), dtype=np.float32)
        state[f"table_{at}.weight"] = torch.from_numpy(table)
        rows = change.remapping
        found = table[np.maximum(rows, 0)]
        found[rows < 0] = 0
        whole.update(found)
    safetensors.torch.save_file(state, _checkpoint(folder))
    written_by = checkpoints.write_checkpoint(
        folder, {_tf_key(at): state[f"table_{at}.weight"].numpy() for at in range(case["tables"])}
    )
    return {"checkpoint_by": written_by, "sha256": whole.hexdigest()}


def _tf_key(at: int) -> str:
    return f"table_{at}/embedding_weights"


def _checkpoint(folder: Path) -> Path:
    return folder / "model.safetensors"


def _new_model(case: Parameters) -> torch.nn.ModuleDict:
    """A model with all its memory, holding ones."""
    import torch

    model = torch.nn.ModuleDict()
    for at in range(case["tables"]):
        model[f"table_{at}"] = torch.nn.Embedding(case["rows"], _COLUMNS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    return model


def _prepare(
    case: Parameters, folder: Path, run: Callable[[torch.nn.ModuleDict], object]
) -> Prepared:
    from tokens import new_vocab, old_vocab

    model = _new_model(case)

    def result() -> str:
        whole = hashlib.sha256()
        for parameter in model.parameters():
            whole.update(parameter.detach().numpy())
        return whole.hexdigest()

    folders = [folder / str(at) for at in range(case["tables"])]
    files = [vocab(each) for each in folders for vocab in (new_vocab, old_vocab)]
    return Prepared(lambda: run(model), result, [*files, _checkpoint(folder)])


def _prepare_ours(case: Parameters, folder: Path) -> Prepared:
    """A call of a process that has had one."""
    first = _prepare_first(case, folder)
    first.run()
    return _prepare_first(case, folder)


def _prepare_first(case: Parameters, folder: Path) -> Prepared:
    def run(model: torch.nn.ModuleDict) -> None:
        from tokens import new_vocab, old_vocab

        import torch_warmstart as tws

        infos = {
            f"table_{at}.weight": tws.VocabInfo(
                new_vocab(folder / str(at)), old_vocab=old_vocab(folder / str(at))
            )
            for at in range(case["tables"])
        }
        settings = tws.WarmStartSettings(_checkpoint(folder), var_name_to_vocab_info=infos)
        tws.warm_start(model, settings)

    return _prepare(case, folder, run)


def _by_hand(case: Parameters, folder: Path, look_up: Callable[[Path], Any]) -> Prepared:
    """A loop over the tables: that join, then one indexed copy."""
    import safetensors.torch
    import torch

    def run(model: torch.nn.ModuleDict) -> None:
        state = safetensors.torch.load_file(_checkpoint(folder))
        with torch.no_grad():
            for at in range(case["tables"]):
                rows = torch.from_numpy(look_up(folder / str(at)))
                weight = model[f"table_{at}"].weight
                is_found = rows >= 0
                weight.zero_()
                weight[is_found] = state[f"table_{at}.weight"][rows[is_found]]

    return _prepare(case, folder, run)


def _prepare_polars(case: Parameters, folder: Path) -> Prepared:
    from lookups import with_polars

    return _by_hand(case, folder, with_polars())


def _prepare_dict(case: Parameters, folder: Path) -> Prepared:
    from lookups import with_dict

    return _by_hand(case, folder, with_dict())


def _prepare_tf(case: Parameters, folder: Path) -> Prepared:
    """tf.compat.v1.train.warm_start, from TensorFlow's own checkpoint of the same tables."""
    import checkpoints
    import tensorflow as tf
    from tokens import new_vocab, old_vocab

    v1 = tf.compat.v1
    graph, keys = tf.Graph(), [_tf_key(at) for at in range(case["tables"])]
    shape = [case["rows"], _COLUMNS]
    with graph.as_default():
        variables = [v1.get_variable(k, shape, initializer=v1.zeros_initializer) for k in keys]
    session = v1.Session(graph=graph)
    folders = [folder / str(at) for at in range(case["tables"])]
    infos = {
        key: v1.train.VocabInfo(
            new_vocab=str(new_vocab(here)),
            new_vocab_size=case["rows"],
            num_oov_buckets=0,
            old_vocab=str(old_vocab(here)),
        )
        for key, here in zip(keys, folders, strict=True)
    }

    def run() -> None:
        with graph.as_default():
            v1.train.warm_start(checkpoints.prefix(folder), var_name_to_vocab_info=infos)
            session.run(v1.global_variables_initializer())

    def result() -> str:
        whole = hashlib.sha256()
        for table in session.run(variables):  # at once: each run looks through the whole graph
            whole.update(table)
        return whole.hexdigest()

    files = [vocab(here) for here in folders for vocab in (new_vocab, old_vocab)]
    size = case["tables"] * case["rows"] * _COLUMNS * 4
    return Prepared(run, result, [*files, *checkpoints.files(folder)], size)


_CONTENDERS = {
    OURS: Contender("ours, second call", _prepare_ours, ("safetensors",)),
    _FIRST: Contender("ours, first call of a process", _prepare_first, ("safetensors",)),
    "polars": Contender("loop: Polars join, torch copy", _prepare_polars, ("polars",)),
    "dict": Contender("loop: dict, torch copy", _prepare_dict, ("safetensors",)),
    "tf": Contender("TensorFlow's `warm_start`", _prepare_tf, ("tensorflow",)),
}


def _name(tables: int, rows: int) -> str:
    return f"{tables:,} tables, {rows:,} rows in all"


def _cases(sizes: Sizes) -> list[Case]:
    return [
        Case(
            _name(tables, rows),
            {"tables": tables, "rows": rows // tables},
            tuple(_CONTENDERS),
            folder=str(tables),
        )
        for tables, rows in (_QUICK if sizes.quick else _SIZES)
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    verdicts = []
    for size in _SIZES:
        summary = summaries.get(_name(*size))
        if summary:
            target = f"{size[0]:,} tables: at least {_FASTER} x faster than the best loop"
            best = summary.times_faster(*_BEST_OF)
            verdicts.append(at_least(target, best, _FASTER))
            with_first = summary.times_faster(*_BEST_OF, of=_FIRST)
            verdicts.append(at_least(f"{target}, first call included", with_first, _FASTER))
            factor = _THAN_TF[size[0]]
            target = f"{size[0]:,} tables: at least {factor} x faster than TensorFlow"
            verdicts.append(at_least(target, summary.times_faster("tf"), factor))
    return verdicts


BENCHMARK = Benchmark(
    title="Many tables",
    about=(
        "Tables of 16 columns from one safetensors file, each with two vocabulary files: shuffled "
        f"tokens of about 20 bytes, {OVERLAP:.0%} of the new ones old ones. By hand means a loop "
        "over the tables. TensorFlow reads the same tables from a checkpoint of its own."
    ),
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    beyond="beyond the model",
)
