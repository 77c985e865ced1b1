"""The first warm start of a process, after `import torch`: mostly what it imports.

To compare with an older state of the package, name a checkout of it:
`TORCH_WARMSTART_BEFORE=/path/to/checkout python benchmarks/bench.py first`.
"""

from __future__ import annotations

import compileall
import gc
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
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
_NAME, _MILLISECONDS, _OF_IMPORTS = "the census example", 60, 30
_UNCOLLECTED, _AGAIN = "ours_uncollected", "ours_again"
_CHECKOUT = os.environ.get("TORCH_WARMSTART_BEFORE")
_BEFORE = "before"
_FOLDER = Path(__file__).parents[2] / "examples" / "census"
_DONE = "204 rows copied, 50 initialised"  # of the embedding, as README.md shows it


def _make(_case: Parameters, _folder: Path) -> dict[str, Any]:
    """The checkpoint and the vocabularies are there; modules are compiled, as pip leaves them."""
    packages = [find_spec("torch_warmstart").submodule_search_locations[0]]
    packages += [str(Path(_CHECKOUT) / "torch_warmstart")] if _CHECKOUT else []
    for package in packages:
        compileall.compile_dir(package, quiet=2)
    return {"sha256": _DONE}


def _prepare_ours(_case: Parameters, _folder: Path) -> Prepared:
    """README.md's example, from the import of the package to the report."""
    nn = import_module("torch.nn")
    layers = {"hiddenlayer_0": nn.Linear(34, 32)}
    model = nn.ModuleDict({"occupation": nn.Embedding(254, 16), "dnn": nn.ModuleDict(layers)})
    reports = []

    def run() -> None:
        tws = import_module("torch_warmstart")
        new, old = (_FOLDER / f"{day}_occupation.txt" for day in ("day2", "day1"))
        scope = "dnn/input_from_feature_columns/input_layer/occupation_embedding"
        settings = tws.WarmStartSettings(
            _FOLDER / "day1_model",
            var_name_to_vocab_info={"occupation.weight": tws.VocabInfo(new, 252, 2, old)},
            var_name_to_prev_var_name={"occupation.weight": f"{scope}/embedding_weights"},
        )
        reports.append(tws.warm_start(model, settings))

    def result() -> str:
        rows = reports[0]["occupation.weight"].rows
        return f"{rows.copied} rows copied, {rows.initialised + rows.oov_initialised} initialised"

    files = [path for path in _FOLDER.rglob("*") if path.is_file()]
    return Prepared(run, result, files)


def _prepare_before(case: Parameters, folder: Path) -> Prepared:
    sys.path.insert(0, str(_CHECKOUT))
    return _prepare_ours(case, folder)


def _prepare_uncollected(case: Parameters, folder: Path) -> Prepared:
    """Without the collector of garbage, which whoever allocates much sets off."""
    gc.disable()
    return _prepare_ours(case, folder)


def _prepare_again(case: Parameters, folder: Path) -> Prepared:
    """The second call: what is imported by then, it imports no more."""
    _prepare_ours(case, folder).run()
    return _prepare_uncollected(case, folder)


_CONTENDERS = {
    **({_BEFORE: Contender("as it was before", _prepare_before)} if _CHECKOUT else {}),
    OURS: Contender("first warm start of a process", _prepare_ours),
    _UNCOLLECTED: Contender("the same without the garbage collector", _prepare_uncollected),
    _AGAIN: Contender("the second one", _prepare_again),
}


def _cases(sizes: Sizes) -> list[Case]:
    return [Case(_NAME, {}, tuple(_CONTENDERS), folder="first", runs=1 if sizes.quick else _RUNS)]


def _judge(summaries: Mapping[str, Summary]) -> list[Verdict]:
    now, before = (summaries[_NAME].seconds(peer) for peer in (OURS, _BEFORE))
    milliseconds = None if now is None else now * 1e3
    first, again = (summaries[_NAME].seconds(peer) for peer in (_UNCOLLECTED, _AGAIN))
    imports = None if first is None or again is None else (first - again) * 1e3
    verdicts = [
        at_most(f"at most {_MILLISECONDS} ms", milliseconds, _MILLISECONDS, "ms"),
        at_most(
            f"at most {_OF_IMPORTS} ms more than the second one, both uncollected",
            imports,
            _OF_IMPORTS,
            "ms",
        ),
    ]
    if _CHECKOUT:
        share = None if now is None or before is None else now / before
        verdicts.append(at_most("at most half of the time before", share, 0.5))
    return verdicts


BENCHMARK = Benchmark(
    title="First warm start",
    about="README.md's example in a process that has imported torch and built the model: from the "
    "import of the package to the report. Files are in the page cache.",
    contenders=_CONTENDERS,
    cases=_cases,
    make=_make,
    judge=_judge,
)
