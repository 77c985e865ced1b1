"""What `import torch_warmstart` adds to `import torch`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
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

_RUNS = 11
_PACKAGE = "torch_warmstart"
_NAME, _MILLISECONDS = "import", 50


def _make(_case: Parameters, _folder: Path) -> dict[str, Any]:
    """Nothing to read; the files are in the page cache once somebody has imported them."""
    import_module(_PACKAGE)
    return {"sha256": "imported"}


def _prepare_ours(_case: Parameters, _folder: Path) -> Prepared:
    import_module("torch")
    return _prepare(_PACKAGE)


def _prepare_torch(_case: Parameters, _folder: Path) -> Prepared:
    return _prepare("torch")


def _prepare(package: str) -> Prepared:
    return Prepared(
        run=lambda: import_module(package),
        result=lambda: "imported" if package in sys.modules else "not imported",
    )


def _prepare_names(_case: Parameters, _folder: Path) -> Prepared:
    """Most modules are imported when a name of theirs is first used: here all of them at once."""
    import_module("torch")

    def run() -> None:
        package = import_module(_PACKAGE)
        for name in package.__all__:
            getattr(package, name)

    return Prepared(run, lambda: "imported")


_CONTENDERS = {
    "torch": Contender("`import torch`", _prepare_torch),
    OURS: Contender("`import torch_warmstart` after it", _prepare_ours),
    "names": Contender("`from torch_warmstart import *` after it", _prepare_names),
}


def _cases(sizes: Sizes) -> list[Case]:
    return [Case(_NAME, {}, tuple(_CONTENDERS), folder=_NAME, runs=1 if sizes.quick else _RUNS)]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    seconds = summaries[_NAME].seconds(OURS)
    target = f"less than {_MILLISECONDS} ms more than `import torch`"
    return [at_most(target, None if seconds is None else seconds * 1e3, _MILLISECONDS, "ms")]


BENCHMARK = Benchmark(
    title="Import",
    about="In processes that have imported nothing else; files in the page cache.",
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
)
