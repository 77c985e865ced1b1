"""The join alone: from two vocabulary files to an int64 remapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
    at_least,
)

from suite.vocab import OVERLAP, toy

_LISTED, _QUICK = 2_000_000, 20_000
_FASTER = 2  # than the best of these
_BEST_OF = ("dict", "polars", "pyarrow")


def _make(case: Parameters, folder: Path) -> dict[str, Any]:
    from tokens import TokenChange, digest

    change = TokenChange(case["rows"], case["rows"], case["overlap"])
    change.write(folder)
    return {"sha256": digest(change.remapping)}


def _prepare_ours(_case: Parameters, folder: Path) -> Prepared:
    from tokens import new_vocab, old_vocab

    import torch_warmstart as tws

    def look_up(_folder: Path) -> Any:
        rows, _ = tws.generate_vocab_remapping(new_vocab(folder), old_vocab(folder))
        return rows.numpy()

    return _prepare(look_up, folder)


def _prepare_tf(case: Parameters, folder: Path) -> Prepared:
    """TensorFlow's own op, without the graph around it."""
    import tensorflow as tf
    from tokens import new_vocab, old_vocab

    def look_up(_folder: Path) -> Any:
        return tf.raw_ops.GenerateVocabRemapping(
            new_vocab_file=str(new_vocab(folder)),
            old_vocab_file=str(old_vocab(folder)),
            new_vocab_offset=0,
            num_new_vocab=case["rows"],
        ).remapping.numpy()

    return _prepare(look_up, folder)


def _prepare_polars(_case: Parameters, folder: Path) -> Prepared:
    from lookups import with_polars

    return _prepare(with_polars(), folder)


def _prepare_pyarrow(_case: Parameters, folder: Path) -> Prepared:
    from lookups import with_pyarrow

    return _prepare(with_pyarrow(), folder)


def _prepare_dict(_case: Parameters, folder: Path) -> Prepared:
    from lookups import with_dict

    return _prepare(with_dict(), folder)


def _prepare(look_up: Callable[[Path], Any], folder: Path) -> Prepared:
    from tokens import digest, new_vocab, old_vocab

    results: list[Any] = []
    return Prepared(
        run=lambda: results.append(look_up(folder)),
        result=lambda: digest(results[0]),
        files=[old_vocab(folder), new_vocab(folder)],
    )


CONTENDERS = {
    OURS: Contender("ours: `generate_vocab_remapping`", _prepare_ours),
    "tf": Contender("TensorFlow's op", _prepare_tf, ("tensorflow",)),
    "polars": Contender("Polars", _prepare_polars, ("polars",)),
    "pyarrow": Contender("PyArrow", _prepare_pyarrow, ("pyarrow",)),
    "dict": Contender("dict", _prepare_dict),
}


def _name(rows: int) -> str:
    return f"{rows:,} against {rows:,}"


def _cases(sizes: Sizes) -> list[Case]:
    return [
        Case(_name(rows), {"rows": rows, "overlap": OVERLAP}, tuple(CONTENDERS), folder=str(rows))
        for rows in sizes.rows or [_QUICK if sizes.quick else _LISTED]
    ]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    summary = summaries.get(_name(_LISTED))
    if not summary:
        return []
    target = f"{_name(_LISTED)}: at least {_FASTER} x faster than the best of dict, Polars, PyArrow"
    return [at_least(target, summary.times_faster(*_BEST_OF), _FASTER)]


BENCHMARK = Benchmark(
    title="The join alone",
    about=(
        "From two vocabulary files to an int64 remapping, -1 for tokens that the old one does not "
        f"have; shuffled tokens of about 20 bytes, {OVERLAP:.0%} shared. Of several ways with each "
        "library the fastest one was taken. Ours checks for blank and repeated entries too."
    ),
    contenders=CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
    toy=toy,
)
