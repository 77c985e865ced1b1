"""Times initialisers of new rows, and the same algorithms as a loop over rows, in one run.

    python benchmarks/initializers.py                       # 100,000 new rows of width 768
    python benchmarks/initializers.py --methods omp --new 2000 --device cuda

Ours is a whole `warm_start`; of it the table shows what the initialiser has taken, from asking it
who answers to the rows that are ready to be written, or are written where they are made as they go
there. A loop is given its pieces, rows and vectors
ready and makes the same rows; of pieces it adds one after the other to its row, as mergekit's
tokensurgeon does, and in `subword-at-once` takes them at once. Where it would take minutes it makes
some, and its time is scaled; the table says of how many. Both must agree. Memory is what the
process held at most beyond what it held before (`VmHWM`), the new rows among it. Times are CPU
time, of all threads, so that a busy machine shows the same; with `--wall` they are what a person
waits, on a quiet machine, and the tokenizer's library may use all cores, as it does for users.

In `subword-cut` both sides cut the new tokens' texts with a tokenizer of transformers, as users do:
the loop calls it for each, as tokensurgeon does, and of ours the table says what the tokenizer's
own library takes.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init
from torch_warmstart.execution import mixing
from torch_warmstart.execution.commit import Filling
from torch_warmstart.planning.rows.initialising import Initialising

_SECONDS = 5.0  # that a loop may take


class _Clock:
    """What time is measured by."""

    is_wall = False

    @classmethod
    def now(cls) -> float:
        """Seconds."""
        return time.perf_counter() if cls.is_wall else time.process_time()


@dataclass
class Result:
    """One method."""

    method: str
    seconds: float
    peak_mib: float  # beyond the model and the inputs
    loop_seconds: float  # scaled to all rows
    loop_rows: int  # that it made
    max_difference: float  # of what both have made
    library_seconds: float = 0.0  # of ours: what a tokenizer's library took

    @property
    def ratio(self) -> float:
        return self.loop_seconds / self.seconds


class Case:
    """Tables, vocabularies and vectors."""

    def __init__(self, old: int, new: int, width: int, vector_width: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.num_old, self.num_new, self.device = old, new, device
        self.old = [f"t{at}" for at in range(old)]
        self.fresh = [f"n{at}" for at in range(new)]
        self.table = torch.randn(old, width, generator=generator)
        counts = torch.randint(1, 7, (new,), generator=generator).tolist()
        rows = torch.randint(old, (sum(counts),), generator=generator).split(counts)
        self.pieces = dict(
            zip(self.fresh, [[self.old[at] for at in part.tolist()] for part in rows], strict=True)
        )
        vectors = torch.randn(old + new, vector_width, generator=generator)
        self.vectors = nn.functional.normalize(vectors, dim=1)

        self._folder = tempfile.TemporaryDirectory()

    @functools.cached_property
    def files(self) -> tuple[str, str]:
        """The vocabularies: the new one and the old one."""
        folder = Path(self._folder.name)
        (folder / "old.txt").write_text("\n".join(self.old) + "\n")
        (folder / "new.txt").write_text("\n".join([*self.old, *self.fresh]) + "\n")
        return str(folder / "new.txt"), str(folder / "old.txt")

    @functools.cached_property
    def outside(self) -> tuple[list[str], torch.Tensor]:
        return [*self.old, *self.fresh], self.vectors


class CutCase(Case):
    """A tokenizer's tokens and a table of theirs; new tokens are words of two."""

    def __init__(self, new: int, width: int, device: str) -> None:
        super().__init__(1, 1, 1, 1, device)
        from pydoc_data.topics import topics

        words = [*dict.fromkeys(" ".join(topics.values()).split())]
        self.tokenizer = _tokenizer([*topics.values()])
        rows = self.tokenizer.get_vocab()
        self.old = sorted(rows, key=rows.__getitem__)
        pairs = itertools.product(words, words[::-7])
        texts = (f" {a}{b}" for a, b in pairs if (a + b).isascii() and f"Ġ{a}{b}" not in rows)
        self.texts = list(itertools.islice(dict.fromkeys(texts), new))
        self.fresh = [text.replace(" ", "Ġ") for text in self.texts]
        self.num_old, self.num_new = len(self.old), len(self.fresh)
        self.table = torch.randn(len(self.old), width, generator=torch.Generator().manual_seed(0))


def _tokenizer(texts: Sequence[str]) -> Any:
    import tokenizers
    import transformers

    if not _Clock.is_wall:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread, as the loop has
    pre = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer, made.decoder = pre, tokenizers.decoders.ByteLevel()
    alphabet = pre.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=8000, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=int, default=50_000, help="rows of the old table")
    parser.add_argument("--new", type=int, default=100_000, help="new rows")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vector-width", type=int, default=300, help="of vectors and donors")
    parser.add_argument("--k", type=int, default=64, help="old rows of a new one, for omp")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", default="mean,subword,similar,omp")
    parser.add_argument("--wall", action="store_true", help="what a person waits, not CPU time")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args(arguments)
    _Clock.is_wall = options.wall
    names = options.methods.split(",")
    case = Case(options.old, options.new, options.width, options.vector_width, options.device)
    methods = _methods(case, options.k)
    results = [
        _measure_cut(CutCase(options.new, options.width, options.device))
        if name == "subword-cut"
        else _measure(case, name, *methods[name])
        for name in names
    ]
    _show(options, results)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in results], indent=2) + "\n")
    return results


Loop = Callable[[int], torch.Tensor]  # makes one new row


def _methods(case: Case, k: int) -> dict[str, tuple[object, Loop]]:
    """By name: our initialiser, and what makes one row after the other."""
    table, known, mine = case.table, case.vectors[: case.num_old], case.vectors[case.num_old :]
    average = functools.cache(lambda: table.mean(0))
    row_of = {entry: row for row, entry in enumerate(case.old)}
    rows = torch.zeros(case.num_new, table.shape[1])

    def subword(row: int) -> torch.Tensor:
        pieces = case.pieces[case.fresh[row]]
        for piece in pieces:
            rows[row] += table[row_of[piece]]
        rows[row] /= len(pieces)
        return rows[row]

    def subword_at_once(row: int) -> torch.Tensor:
        return table[[row_of[piece] for piece in case.pieces[case.fresh[row]]]].mean(0)

    def similar(row: int) -> torch.Tensor:
        alike = known @ mine[row]
        top, near = torch.topk(alike, 10)
        return torch.softmax(top / 0.1, 0) @ table[near]

    def omp(row: int) -> torch.Tensor:
        target, left, chosen = mine[row], mine[row], []
        for _ in range(k):
            chosen.append(int((known @ left).abs().argmax()))
            factors = torch.linalg.lstsq(known[chosen].T, target[:, None]).solution[:, 0]
            left = target - known[chosen].T @ factors
        return factors @ table[chosen]

    return {
        "mean": (init.mean(), lambda _: average()),
        "subword": (init.subword(case.pieces), subword),
        "subword-at-once": (init.subword(case.pieces), subword_at_once),
        "similar": (init.similar(case.outside), similar),
        "omp": (init.omp(case.outside, k=k), omp),
    }


def _measure(case: Case, name: str, initializer: object, one_row: Loop) -> Result:
    size = case.num_old + case.num_new
    model = nn.Embedding(size, case.table.shape[1], device=case.device)
    new, old = case.files
    info = tws.VocabInfo(new, size, 0, old, backup_initializer=initializer)
    settings = tws.WarmStartSettings(
        {"weight": case.table}, var_name_to_vocab_info={"weight": info}
    )
    tws.warm_start(nn.Embedding(2, 2), {"weight": torch.ones(2, 2)})  # imports
    before = _reset_peak()
    with (
        _timed(Initialising, "plan") as planning,
        _timed(mixing, "fill_mixed") as making,
        _timed(Filling, "run", lambda filling: filling.later_bytes > 0) as writing,
    ):
        report = tws.warm_start(model, settings)
    peak = _peak() - before
    seconds = sum(planning) + sum(making) + sum(writing)
    assert report["weight"].new_rows.answered[0][1] == case.num_new
    made = model.weight.detach()[case.num_old :].cpu()
    out = torch.zeros_like(made)
    rows, began = 0, _Clock.now()
    with torch.no_grad():
        for row in range(case.num_new):
            out[row] = one_row(row)
            rows += 1
            if row % 16 == 15 and _Clock.now() - began > _SECONDS:
                break
    took = _Clock.now() - began
    differ = float((out[:rows] - made[:rows]).abs().max())
    return Result(name, seconds, peak / 2**20, took * case.num_new / rows, rows, differ)


def _measure_cut(case: CutCase) -> Result:
    rows = torch.zeros(case.num_new, case.table.shape[1])

    def one_row(row: int) -> torch.Tensor:
        numbers = case.tokenizer(case.texts[row], add_special_tokens=False)["input_ids"]
        for number in numbers:
            rows[row] += case.table[number]
        rows[row] /= len(numbers)
        return rows[row]

    result = _measure(case, "subword-cut", init.subword(case.tokenizer), one_row)
    backend = case.tokenizer.backend_tokenizer
    groups = [case.texts[at : at + 256] for at in range(0, case.num_new, 256)]
    began = _Clock.now()
    backend.encode_batch(groups, is_pretokenized=True, add_special_tokens=False)
    return replace(result, library_seconds=_Clock.now() - began)


@contextlib.contextmanager
def _timed(
    owner: Any, name: str, counts: Callable[..., bool] | None = None
) -> Iterator[list[float]]:
    """Times a function while others call it, for the arguments that count."""
    function, times = getattr(owner, name), []

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = _Clock.now()
        result = function(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if counts is None or counts(args[0]):
            times.append(_Clock.now() - began)
        return result

    setattr(owner, name, timed)
    try:
        yield times
    finally:
        setattr(owner, name, function)


def _reset_peak() -> int:
    """Sets the peak back; the bytes that are held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10


def _show(options: argparse.Namespace, results: list[Result]) -> None:
    console = Console(width=110)
    console.print(
        f"{options.new:,} new rows of width {options.width}, {options.old:,} old ones, on "
        f"{options.device}; vectors of width {options.vector_width}, omp with k = {options.k}"
    )
    unit = "s" if options.wall else "CPU s"
    columns = ("method", unit, "peak, MiB", f"loop, {unit}", "rows it made", "x less", "differ by")
    table = Table(*columns)
    for one in results:
        figures = (one.seconds, one.peak_mib, one.loop_seconds)
        seconds, peak, loop = (f"{figure:,.2f}" for figure in figures)
        cells = (seconds, peak, loop, f"{one.loop_rows:,}", f"{one.ratio:.1f}")
        table.add_row(one.method, *cells, f"{one.max_difference:.1e}")
    console.print(table)
    for one in results:
        if one.library_seconds:
            console.print(f"of {one.method} {one.library_seconds:.2f} s the tokenizer's library")


if __name__ == "__main__":
    main()
