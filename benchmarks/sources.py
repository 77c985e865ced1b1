"""Times how a vocabulary is read from what lies in memory, beside reading it from a file.

    python benchmarks/sources.py                            # 10,000,000 entries
    python benchmarks/sources.py --entries 100000 --sources file,polars

CPU time of one thread, the least of some tries; objects are Python's that a vocabulary left behind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import torch_warmstart as tws

_TRIES = 5


@dataclass
class Result:
    """One source."""

    source: str
    seconds: float
    objects: int
    fingerprint: str


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=10_000_000)
    parser.add_argument("--sources", default=",".join(_SOURCES))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    results = [_measure(name, options.entries) for name in options.sources.split(",")]
    for one in results:
        ratio = one.seconds / results[0].seconds
        print(f"{one.source:8} {one.seconds:7.3f} s CPU {ratio:6.1f} x {one.objects:6,} objects")
    return results


def _measure(name: str, count: int) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        source = _SOURCES[name](_texts(count), Path(folder))
        vocabulary = tws.Vocabulary.load(source)
        before, seconds = sys.getallocatedblocks(), []
        for _ in range(_TRIES):
            del vocabulary
            began = time.process_time()
            vocabulary = tws.Vocabulary.load(source)
            seconds.append(time.process_time() - began)
        objects = sys.getallocatedblocks() - before
        print_ = vocabulary.fingerprint if count <= 1_000_000 else ""
    return Result(name, min(seconds), objects, print_)


def _texts(count: int) -> Any:
    """A column of Arrow's, of some 17 bytes an entry."""
    import pyarrow as pa
    import pyarrow.compute as pc

    numbers = pa.array(np.arange(count) * 7919 % 1_000_000_007)
    parts = (pa.scalar("user/"), pc.cast(numbers, pa.string()), pa.scalar("/x"), "")
    return pc.binary_join_element_wise(*parts)


def _file(texts: Any, folder: Path) -> str:
    path = folder / "entries.txt"
    path.write_text("\n".join(texts.to_pylist()) + "\n")
    return str(path)


def _polars(texts: Any, folder: Path) -> Any:
    import polars

    del folder
    return polars.from_arrow(texts)


def _pandas(texts: Any, folder: Path) -> Any:
    import pandas

    del folder
    return pandas.Series(texts.to_pandas(), dtype="str")


# By name: what makes the source. The first is what the others are compared with.
_SOURCES: dict[str, Callable[[Any, Path], Any]] = {
    "file": _file,
    "pyarrow": lambda texts, _: texts,
    "pandas": _pandas,
    "polars": _polars,
    "numpy S": lambda texts, _: np.array([text.encode() for text in texts.to_pylist()]),
    "numpy U": lambda texts, _: np.array(texts.to_pylist()),
    "numpy T": lambda texts, _: np.array(texts.to_pylist(), dtype=np.dtypes.StringDType()),
    "list": lambda texts, _: texts.to_pylist(),
}


if __name__ == "__main__":
    main()
