"""Measures torch_warmstart against TensorFlow and others, and draws tables and plots of it.

    python benchmarks/bench.py all                      # everything, at the sizes of the targets
    python benchmarks/bench.py vocab --rows 500000 --dim 64 --peers ours,tf

Every run is a process of its own, and the contenders take turns. Each benchmark writes a JSON file;
tables and plots are made of all of them. See benchmarks/README.md for what is measured.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

from case import Benchmark, Case, CaseResult, LeftOutError, Parameters, Sizes
from measure import CLOCK, CPU, measure, run_worker

NAMES = (
    *("vocab", "join", "entries", "load", "index", "memory", "growth", "imports", "first"),
    *("tables", "variables", "cast", "keras", "slots", "names", "join_growth"),
)
OUT = Path(__file__).resolve().parent / "out"
_RUNS, _MOST_RUNS = 5, 99  # of each contender
MAKE = "make"  # the worker that writes the inputs
TOY = "toy"  # the folder of inputs for what is done before it is measured


def main() -> None:
    options = parse_options()
    if options.worker:
        print(json.dumps(work(*options.worker)), flush=True)
        os._exit(0)  # what peers' threads do while a process ends now and then aborts it
    from machine import describe_machine, touch_memory
    from show import show_all, show_benchmark

    if options.cpu:
        os.environ[CLOCK] = CPU  # which workers inherit
    options.out.mkdir(parents=True, exist_ok=True)
    equal = True
    for name in options.names:
        machine = describe_machine()
        if not options.quick:
            touch_memory()
        benchmark = load_benchmark(name)
        results = run_benchmark(name, benchmark, options)
        equal = equal and all(result.equal for result in results)
        record = as_record(name, benchmark, machine, results)
        (options.out / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")
        print(show_benchmark(record), flush=True)
        if benchmark.plot:
            summaries = {result.case.name: result.summary() for result in results}
            benchmark.plot(summaries, options.out)
    (options.out / "latest.md").write_text(show_all(options.out, NAMES))
    if not equal:
        sys.exit("The results differ.")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", default=["all"], help=f"all, {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, help="of each contender, at most (5, some others)")
    parser.add_argument("--peers", type=_listed, help="who takes part, with commas (all)")
    parser.add_argument("--rows", type=_numbers, help="vocab, join, growth, slots: with commas")
    parser.add_argument("--dim", type=int, help="vocab, growth: columns of the table")
    parser.add_argument("--tensors", type=int, help="load, index")
    parser.add_argument("--mebibytes", type=int, help="load: the model; memory: largest table")
    parser.add_argument("--quick", action="store_true", help="toy sizes: does it work at all?")
    parser.add_argument("--out", type=Path, default=OUT, help="for JSON, tables and plots")
    parser.add_argument("--work-dir", type=Path, help="where inputs are made (the output folder)")
    parser.add_argument("--cpu", action="store_true", help="judge CPU time: on a busy machine")
    parser.add_argument("--keep", action="store_true", help="leave the inputs where they are")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in (*NAMES, "all")]
    if unknown:
        parser.error(f"{unknown[0]!r} is none of all, {', '.join(NAMES)}")
    options.names = NAMES if "all" in options.names else options.names
    options.sizes = Sizes(
        options.quick, options.rows, options.dim, options.tensors, options.mebibytes
    )
    return options


def _listed(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(number.replace("_", "")) for number in text.split(",")]


def load_benchmark(name: str) -> Benchmark:
    return importlib.import_module(f"suite.{name}").BENCHMARK


def work(benchmark: str, role: str, parameters: str, folder: str) -> dict[str, Any]:
    """A worker's whole life: makes the inputs, or is one run of a contender."""
    found = load_benchmark(benchmark)
    case, here = json.loads(parameters), Path(folder)
    if role == MAKE:
        return make_inputs(found, case, here)
    contender = found.contenders[role]
    if found.toy and not contender.is_first:
        contender.prepare(found.toy(case), here / TOY).run()
    return measure(contender.prepare(case, here))


def make_inputs(benchmark: Benchmark, case: Parameters, folder: Path) -> dict[str, Any]:
    """Writes the inputs of a case, and below them those of a toy size."""
    try:
        if benchmark.toy:
            (folder / TOY).mkdir()
            benchmark.make(benchmark.toy(case), folder / TOY)
        return benchmark.make(case, folder)
    except LeftOutError as error:
        return {"left_out": str(error)}


def run_benchmark(name: str, benchmark: Benchmark, options: argparse.Namespace) -> list[CaseResult]:
    """All cases of a benchmark, those with the same inputs together."""
    work_dir = options.work_dir or options.out
    work_dir.mkdir(parents=True, exist_ok=True)
    results = []
    for _, cases in groupby(benchmark.cases(options.sizes), key=lambda case: case.folder):
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work_dir)).resolve()
        try:
            results += run_cases(name, benchmark, list(cases), folder, options)
        finally:
            if not options.keep:
                shutil.rmtree(folder)
    return results


def run_cases(
    name: str, benchmark: Benchmark, cases: list[Case], folder: Path, options: argparse.Namespace
) -> list[CaseResult]:
    """Cases that share their inputs."""
    _say(f"{name}: making the inputs of {cases[0].name}")
    made = start_worker(name, MAKE, cases[0], folder)
    os.sync()  # or the disk would still be busy with them during the first runs
    results = [CaseResult(case, made) for case in cases]
    for result in results:
        run_contenders(name, benchmark, result, folder, options)
    return results


def run_contenders(
    name: str,
    benchmark: Benchmark,
    result: CaseResult,
    folder: Path,
    options: argparse.Namespace,
) -> None:
    """Everybody in turn, so that a drift of the machine hits them all."""
    case = result.case
    if "left_out" in result.made:
        result.left_out["everyone"] = result.made["left_out"]
        return
    for contender in case.contenders:
        why = why_left_out(benchmark, contender, options.peers)
        if why:
            result.left_out[contender] = why
        else:
            result.runs[contender] = []
    count = min(options.runs or _MOST_RUNS, case.runs or options.runs or _RUNS)
    for number in range(count):
        for contender, runs in result.runs.items():
            _say(f"{name}: {case.name}: run {number + 1} of {count}: {contender}")
            runs.append(start_worker(name, contender, case, folder))
    _say("")


def why_left_out(benchmark: Benchmark, contender: str, peers: list[str] | None) -> str | None:
    """Why a contender does not take part here, or None."""
    if peers is not None and contender not in peers:
        return "not among --peers"
    missing = [
        package
        for package in benchmark.contenders[contender].needs
        if importlib.util.find_spec(package) is None
    ]
    return f"{', '.join(missing)} not installed" if missing else None


def start_worker(name: str, role: str, case: Case, folder: Path) -> dict[str, Any]:
    """Runs one worker to its end."""
    parameters = json.dumps(case.parameters)
    command = [sys.executable, __file__, "--worker", name, role, parameters, str(folder)]
    return run_worker(command, folder / "worker.log")


def as_record(
    name: str, benchmark: Benchmark, machine: dict[str, str], results: list[CaseResult]
) -> dict[str, Any]:
    """Everything about a benchmark as JSON, with the texts its table needs."""
    verdicts = benchmark.judge({result.case.name: result.summary() for result in results})
    return {
        "benchmark": name,
        "title": benchmark.title,
        "about": benchmark.about,
        "beyond": benchmark.beyond,
        "labels": {peer: found.label for peer, found in benchmark.contenders.items()},
        "machine": machine,
        "cases": [
            {
                "name": result.case.name,
                "parameters": result.case.parameters,
                "made": result.made,
                "left_out": result.left_out,
                "results_equal": result.equal,
                "runs": result.runs,
            }
            for result in results
        ],
        "targets": [vars(verdict) for verdict in verdicts],
    }


def _say(text: str) -> None:
    """What is going on, on one line of a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")


if __name__ == "__main__":
    main()
