"""Fuzzes the checkpoint formats: `make fuzz`, or `python -m fuzz.fuzz --help` in `tests`."""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import torch

from fuzz import cases, seeds
from fuzz.cases import Case
from fuzz.mutators import mutate
from fuzz.reading import Values, read_everything
from fuzz.worker import Finding, Outcome, run_batch, run_one
from torch_warmstart.api import load_checkpoint

CORPUS = Path(__file__).with_name("corpus")
_BATCH = 200  # cases a fork
_MINIMISING_SECONDS = 20.0


@dataclass
class Tally:
    """What came of one format."""

    format: str
    tried: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    findings: dict[tuple[str, str], tuple[Case, Finding]] = field(default_factory=dict)

    def add(self, outcome: Outcome, case: Callable[[], Case], *, is_seed: bool) -> None:
        self.tried += 1
        self.accepted += outcome.accepted
        self.slowest = max(self.slowest, outcome.cost.cpu_seconds)
        finding = outcome.finding
        if finding is None and is_seed and not outcome.accepted:
            finding = Finding("seed refused", case().seed, "a valid file was not read")
        if finding is not None and finding.signature not in self.findings:
            self.findings[finding.signature] = (case(), finding)

    def row(self) -> str:
        refused = self.tried - self.accepted
        rate = self.tried / self.seconds if self.seconds else 0
        return (
            f"{self.format:14}{self.tried:10,}{self.accepted:10,}{refused:10,}"
            f"{len(self.findings):10,}{rate:10,.0f}{self.slowest * 1e3:12,.0f}"
        )


HEADER = (
    f"{'format':14}{'tried':>10}{'accepted':>10}{'refused':>10}{'findings':>10}{'a second':>10}"
    f"{'slowest, ms':>12}"
)


@functools.cache
def seed_values(format: str, seed: str) -> Values:
    """What a seed holds, as it is read before anything is done to it."""
    if format == seeds.VOCABULARY:
        return {}
    case = next(case for case in seeds.make_seeds(format) if case.seed == seed)
    with tempfile.TemporaryDirectory() as folder:
        url = cases.write_files(case, Path(folder))
        try:
            with load_checkpoint(url) as checkpoint:
                values = read_everything(checkpoint)
        except Exception:  # the seed itself is the first case, where this is reported
            return {}
        # Copies: a mapping of a file that is about to be replaced would change with it.
        return {
            key: value.clone() if isinstance(value, torch.Tensor) else value
            for key, value in values.items()
        }


def expected_values(case: Case) -> Values:
    """What must still be true of a case."""
    return seed_values(case.format, case.seed) if case.same is None or case.same else {}


def make_case(format: str, number: int, seed: int) -> Case:
    """Case `number` of a run: the same one every time."""
    all_seeds = seeds.make_seeds(format)
    if number < len(all_seeds):
        return all_seeds[number]  # first of all the seeds as they are
    rng = Random(f"{seed}/{format}/{number}")
    return mutate(rng, rng.choice(all_seeds), all_seeds)


def fuzz_format(
    format: str, *, seconds: float = float("inf"), count: int | None = None, seed: int = 0
) -> Tally:
    """Runs cases of one format until the time is up or there were `count`."""
    tally = Tally(format)
    for case in seeds.make_seeds(format):
        expected_values(case)  # here, so that no worker has to
    started, number = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz_") as work:
        folder = Path(work) / "case"
        while time.monotonic() - started < seconds and (count is None or number < count):
            size = _BATCH if count is None else min(_BATCH, count - number)
            numbers = range(number, number + size)
            batch = functools.partial(_cases, format, numbers, seed)
            outcomes = run_batch(batch, folder, expected_values)
            for at, outcome in zip(numbers, outcomes, strict=False):
                case = functools.partial(make_case, format, at, seed)
                tally.add(outcome, case, is_seed=at < len(seeds.make_seeds(format)))
            number += max(1, len(outcomes))
    tally.seconds = time.monotonic() - started
    return tally


def _cases(format: str, numbers: range, seed: int) -> Iterator[Case]:
    return (make_case(format, number, seed) for number in numbers)


# ---- Findings --------------------------------------------------------------------------------


def minimise(case: Case, finding: Finding) -> Case:
    """A smaller case with the same finding, as far as cutting and clearing bytes can get."""
    deadline = time.monotonic() + _MINIMISING_SECONDS
    with tempfile.TemporaryDirectory(prefix="fuzz_") as work:

        def still(candidate: Case) -> bool:
            if time.monotonic() > deadline:
                return False
            outcome = run_one(candidate, Path(work) / "case", expected_values(candidate))
            return outcome.finding is not None and outcome.finding.signature == finding.signature

        for path in sorted(case.files):
            for step in (_without, _shortened, _cleared):
                for candidate in step(case, path):
                    if candidate.size <= case.size and still(candidate):
                        case = candidate
                        if path not in case.files:
                            break
                if path not in case.files:
                    break
    return case


def _without(case: Case, path: str) -> Iterator[Case]:
    yield replace(case, files={name: data for name, data in case.files.items() if name != path})


def _shortened(case: Case, path: str) -> Iterator[Case]:
    """With one part of the file left out, in ever smaller parts."""
    data = case.files[path]
    size = len(data) // 2
    while size:
        for start in range(0, len(data), size):
            yield _with(case, path, data[:start] + data[start + size :])
        size //= 4


def _cleared(case: Case, path: str) -> Iterator[Case]:
    data = case.files[path]
    size = max(1, len(data) // 16)
    for start in range(0, len(data), size):
        part = data[start : start + size]
        yield _with(case, path, data[:start] + bytes(len(part)) + data[start + size :])


def _with(case: Case, path: str, data: bytes) -> Case:
    return replace(case, files={**case.files, path: data})


def save_finding(case: Case, finding: Finding, corpus: Path) -> Path:
    """Writes a finding into the corpus, with a line that says what it was."""
    digest = hashlib.sha256("/".join(finding.signature).encode()).hexdigest()[:8]
    folder = corpus / f"{case.format}-{digest}"
    note = f"{finding.kind} in {finding.where}: {finding.detail:.120} ({case.note})"
    cases.save(replace(case, note=note), folder)
    return folder


# ---- The command -----------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the fuzzer; the exit status tells whether there were findings."""
    options = _parse(arguments)
    formats = options.formats or seeds.available()
    tallies = []
    for name in formats:
        tally = fuzz_format(name, seconds=options.seconds / len(formats), seed=options.seed)
        tallies.append(tally)
        for case, finding in tally.findings.values():
            small = minimise(case, finding)
            folder = save_finding(small, finding, options.corpus)
            print(f"{folder.name}: {finding.kind} in {finding.where}: {finding.detail}", flush=True)
            print(f"    {case.seed}, {case.note}")
    print(HEADER)
    for tally in tallies:
        print(tally.row())
    return int(any(tally.findings for tally in tallies))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", help=f"of {', '.join(seeds.SEEDS)}; default: all")
    parser.add_argument("--seconds", type=float, default=60, help="of all formats together")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where findings go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
