"""Warm start through a vocabulary change, from a TensorFlow checkpoint into an nn.Embedding."""

from __future__ import annotations

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
    at_most,
)

if TYPE_CHECKING:
    import torch

KEY = "item_embedding/embedding_weights"  # of the table, in the checkpoint and in TF's graph
_LISTED = ((2_000_000, 64), (8_000_000, 16), (500_000, 64))
_QUICK = ((20_000, 16),)
_FASTER = {(2_000_000, 64): 20, (8_000_000, 16): 25, (500_000, 64): 15}  # first call included
_FIRST = "ours_first"
_MEMORY = 300e6  # bytes beyond the model's own, at the first of the sizes
_MOST_ROWS = {"tf_keras": 2_000_000, "dict": 2_000_000, "rowloop": 500_000}  # minutes above that
OVERLAP = 0.8


def parameters(rows: int, dim: int) -> Parameters:
    return {"rows": rows, "dim": dim, "overlap": OVERLAP}


def toy(case: Parameters) -> Parameters:
    return case | {"rows": 1_000}


def case_name(rows: int, dim: int) -> str:
    return f"{rows:,} x {dim}"


def make(case: Parameters, folder: Path) -> dict[str, Any]:
    """Writes vocabularies and checkpoint; the new table follows from the token ids alone."""
    import checkpoints
    import numpy as np
    from tokens import TokenChange, digest

    change = TokenChange(case["rows"], case["rows"], case["overlap"])
    change.write(folder)
    rng = np.random.default_rng(change.seed)
    table = rng.standard_normal((case["rows"], case["dim"]), dtype=np.float32)
    written_by = checkpoints.write_checkpoint(folder, {KEY: table})
    known = change.remapping >= 0
    expected = np.zeros_like(table)
    expected[known] = table[change.remapping[known]]
    return {"checkpoint_by": written_by, "sha256": digest(expected)}


def input_files(folder: Path) -> list[Path]:
    from checkpoints import files
    from tokens import new_vocab, old_vocab

    return [old_vocab(folder), new_vocab(folder), *files(folder)]


def new_table(case: Parameters) -> torch.Tensor:
    """The table of a new model: it has its memory, and holds random values."""
    import torch

    return torch.nn.Embedding(case["rows"], case["dim"]).weight.detach()


def prepare_ours(case: Parameters, folder: Path) -> Prepared:
    """torch_warmstart.warm_start, with every default."""
    import checkpoints
    import torch
    from tokens import digest, new_vocab, old_vocab

    import torch_warmstart as tws

    model = torch.nn.ModuleDict({"item_embedding": torch.nn.Embedding(case["rows"], case["dim"])})
    info = tws.VocabInfo(new_vocab(folder), case["rows"], 0, old_vocab(folder))

    def run() -> None:
        settings = tws.WarmStartSettings(
            checkpoints.prefix(folder), var_name_to_vocab_info={"item_embedding.weight": info}
        )
        tws.warm_start(model, settings)

    weight = model["item_embedding"].weight.detach()
    return Prepared(run, lambda: digest(weight.numpy()), input_files(folder))


def prepare_first(case: Parameters, folder: Path) -> Prepared:
    """The same in a process that has had none; it has torch, and the model."""
    import checkpoints
    import torch
    from tokens import digest, new_vocab, old_vocab

    model = torch.nn.ModuleDict({"item_embedding": torch.nn.Embedding(case["rows"], case["dim"])})

    def run() -> None:
        import torch_warmstart as tws

        info = tws.VocabInfo(new_vocab(folder), case["rows"], 0, old_vocab(folder))
        settings = tws.WarmStartSettings(
            checkpoints.prefix(folder), var_name_to_vocab_info={"item_embedding.weight": info}
        )
        tws.warm_start(model, settings)

    weight = model["item_embedding"].weight.detach()
    return Prepared(run, lambda: digest(weight.numpy()), input_files(folder))


def prepare_tf(case: Parameters, folder: Path) -> Prepared:
    """tf.compat.v1.train.warm_start in graph mode, which is the only mode it has."""
    import checkpoints
    import tensorflow as tf
    from tokens import digest, new_vocab, old_vocab

    v1 = tf.compat.v1
    graph = tf.Graph()
    with graph.as_default():
        shape = [case["rows"], case["dim"]]
        variable = v1.get_variable(KEY, shape, initializer=v1.zeros_initializer)
    session = v1.Session(graph=graph)
    info = v1.train.VocabInfo(
        new_vocab=str(new_vocab(folder)),
        new_vocab_size=case["rows"],
        num_oov_buckets=0,
        old_vocab=str(old_vocab(folder)),
    )

    def run() -> None:
        with graph.as_default():
            prefix = checkpoints.prefix(folder)
            v1.train.warm_start(prefix, var_name_to_vocab_info={KEY: info})
            session.run(v1.global_variables_initializer())

    return Prepared(
        run, lambda: digest(session.run(variable)), input_files(folder), _table_bytes(case)
    )


def prepare_tf_keras(case: Parameters, folder: Path) -> Prepared:
    """tf_keras.utils.warmstart_embedding_matrix, which returns a new table."""
    import checkpoints
    import tensorflow as tf
    import tf_keras
    from tokens import digest, new_vocab, old_vocab

    results = []

    def run() -> None:
        base = tf.train.load_checkpoint(checkpoints.prefix(folder)).get_tensor(KEY)
        table = tf_keras.utils.warmstart_embedding_matrix(
            str(old_vocab(folder)), str(new_vocab(folder)), base, "zeros"
        )
        results.append(table)

    return Prepared(
        run, lambda: digest(results[0].numpy()), input_files(folder), _table_bytes(case)
    )


def prepare_polars(case: Parameters, folder: Path) -> Prepared:
    from lookups import with_polars

    return prepare_by_hand(with_polars(), case, folder)


def prepare_pyarrow(case: Parameters, folder: Path) -> Prepared:
    from lookups import with_pyarrow

    return prepare_by_hand(with_pyarrow(), case, folder)


def prepare_dict(case: Parameters, folder: Path) -> Prepared:
    from lookups import with_dict

    return prepare_by_hand(with_dict(), case, folder)


def prepare_by_hand(look_up: Callable[[Path], Any], case: Parameters, folder: Path) -> Prepared:
    """Rows by somebody's join, and then one indexed copy with torch."""
    import torch
    from tokens import digest

    weight, read_table = new_table(case), _table_reader(folder)

    def run() -> None:
        rows = torch.from_numpy(look_up(folder))
        known = rows >= 0
        weight.zero_()
        weight[known] = read_table().index_select(0, rows[known])

    return Prepared(run, lambda: digest(weight.numpy()), input_files(folder))


def prepare_rowloop(case: Parameters, folder: Path) -> Prepared:
    """What one writes first: a dict, and a loop over the rows."""
    from lookups import read_tokens
    from tokens import digest, new_vocab, old_vocab

    weight, read_table = new_table(case), _table_reader(folder)

    def run() -> None:
        row_of = {token: row for row, token in enumerate(read_tokens(old_vocab(folder)))}
        table = read_table()
        weight.zero_()
        for row, token in enumerate(read_tokens(new_vocab(folder))):
            if token in row_of:
                weight[row] = table[row_of[token]]

    return Prepared(run, lambda: digest(weight.numpy()), input_files(folder))


def _table_reader(folder: Path) -> Callable[[], torch.Tensor]:
    """A function that reads the old table as one does without our library: with TensorFlow.

    Where that is missing, ours stands in for it, and the comparison is about the vocabularies.
    """
    import checkpoints

    if checkpoints.HAS_TENSORFLOW:
        import tensorflow as tf
        import torch

        def read_table() -> torch.Tensor:
            reader = tf.train.load_checkpoint(checkpoints.prefix(folder))
            return torch.from_numpy(reader.get_tensor(KEY))
    else:
        import torch_warmstart as tws

        def read_table() -> torch.Tensor:
            return tws.load_variable(checkpoints.prefix(folder), KEY)

    return read_table


def _table_bytes(case: Parameters) -> int:
    return case["rows"] * case["dim"] * 4


CONTENDERS = {
    OURS: Contender("ours, second call", prepare_ours),
    _FIRST: Contender("ours, first call of a process", prepare_first, is_first=True),
    "tf": Contender("TensorFlow's `warm_start`", prepare_tf, ("tensorflow",)),
    "tf_keras": Contender(
        "tf_keras' `warmstart_embedding_matrix`", prepare_tf_keras, ("tensorflow", "tf_keras")
    ),
    "polars": Contender("Polars join, torch copy", prepare_polars, ("polars",)),
    "pyarrow": Contender("PyArrow join, torch copy", prepare_pyarrow, ("pyarrow",)),
    "dict": Contender("dict, torch copy", prepare_dict),
    "rowloop": Contender("dict, torch row by row", prepare_rowloop),
}


def _cases(sizes: Sizes) -> list[Case]:
    listed = _QUICK if sizes.quick else _LISTED
    if sizes.rows or sizes.dim:
        listed = tuple((rows, sizes.dim or 64) for rows in sizes.rows or [2_000_000])
    return [
        Case(
            case_name(rows, dim),
            parameters(rows, dim),
            tuple(peer for peer in CONTENDERS if rows <= _MOST_ROWS.get(peer, rows)),
            folder=f"{rows}x{dim}",
        )
        for rows, dim in listed
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    verdicts = []
    for (rows, dim), factor in _FASTER.items():
        summary = summaries.get(case_name(rows, dim))
        if summary:
            target = f"{case_name(rows, dim)}: at least {factor} x faster than TensorFlow"
            verdicts.append(at_least(target, summary.times_faster("tf"), factor))
            with_first = summary.times_faster("tf", of=_FIRST)
            verdicts.append(at_least(f"{target}, first call included", with_first, factor))
    summary = summaries.get(case_name(*_LISTED[0]))
    if summary:
        beyond = summary.beyond(OURS)
        target = f"{case_name(*_LISTED[0])}: at most {_MEMORY / 1e6:.0f} MB beyond the model's own"
        megabytes = None if beyond is None else beyond / 1e6
        verdicts.append(at_most(target, megabytes, _MEMORY / 1e6, "MB"))
    return verdicts


BENCHMARK = Benchmark(
    title="Warm start through a vocabulary change",
    about=(
        "A model with one embedding is warm-started from a TensorFlow checkpoint whose vocabulary "
        f"has changed: shuffled tokens of about 20 bytes, {OVERLAP:.0%} of the new ones old ones, "
        "float32, rows of new tokens zeros. By hand means: that join, the table read with "
        "TensorFlow, one indexed copy."
    ),
    contenders=CONTENDERS,
    cases=_cases,
    make=make,
    judge=_judge,
    toy=toy,
    beyond="beyond the table",
)
