"""Everything there is to measure on a GPU, in at most ten minutes: `make cuda`.

    python benchmarks/gpu.py --out gpu_out

It runs the tests that are marked `cuda`, then `gpu_gather.py`, then a join of two vocabularies on
the device, and writes `gpu.json` and the lines for docs/performance.md. Each part is a process of
its own with its share of the time; one that fails or runs out of it is said, and the others go on.
Without a GPU it says so, and that nothing was measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ROWS = 2_000_000  # of each vocabulary of the join
REPEATS = 5
# Shares of what the hardware copies.
ON_DEVICE, SHORT_ON_DEVICE, FROM_HOST = 0.9, 0.6, 0.85
LONG, SHORT = 64, 16  # bytes of a row
MOST = 0.8  # of the rows are wanted: below it the host copies less than it could


@dataclass(frozen=True)
class Part:
    """One process: its arguments behind the interpreter, and how many seconds it may take."""

    name: str
    arguments: tuple[str, ...]
    seconds: int


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "out", help="for JSON and logs")
    parser.add_argument("--join", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.join:
        options.join.write_text(json.dumps(join_on_device(options.join.parent)))
        return 0
    import torch

    if not torch.cuda.is_available():
        print("No CUDA device here: nothing was tested on one, and nothing was measured.")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    results = {part.name: run(part, options.out) for part in parts(options.out)}
    record = as_record(torch.cuda.get_device_name(), torch.__version__, results, options.out)
    (options.out / "gpu.json").write_text(json.dumps(record, indent=2) + "\n")
    print("\n".join(lines_of(record)))
    return 0 if all(results.values()) else 1


def parts(out: Path) -> tuple[Part, ...]:
    """What is run, in this order: 570 seconds in all."""
    gather, join = str(HERE / "gpu_gather.py"), str(Path(__file__).resolve())
    return (
        Part("tests", ("-m", "pytest", "-m", "cuda", "-q", "tests/execution", "tests/slots"), 240),
        Part("gather", (gather, "--mib", "1024", "--json", str(out / "gather.json")), 210),
        Part("join", (join, "--join", str(out / "join.json")), 120),
    )


def run(part: Part, out: Path) -> bool:
    """Whether it went well; what it printed is in a log."""
    print(f"{part.name} ...", flush=True)
    with (out / f"{part.name}.log").open("w") as log:
        try:
            done = subprocess.run(
                (sys.executable, *part.arguments),
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=part.seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            print(f"{part.name}: not done within {part.seconds} s; see {log.name}")
            return False
    if done.returncode:
        print(f"{part.name}: failed; see {log.name}")
    return done.returncode == 0


def as_record(device: str, version: str, results: dict[str, bool], out: Path) -> dict[str, Any]:
    """What was measured, as JSON."""
    found = {}
    for name in ("gather", "join"):
        path = out / f"{name}.json"
        found[name] = json.loads(path.read_text()) if results[name] and path.exists() else None
    return {"device": device, "torch": version, "went_well": results, **found}


def lines_of(record: dict[str, Any]) -> list[str]:
    """The figures and the targets, a line each."""
    lines = [f"{record['device']}, torch {record['torch']}"]
    for name, went_well in record["went_well"].items():
        lines.append(f"- {name}: {'went well' if went_well else '**failed**'}")
    gather, join = record["gather"], record["join"]
    if gather is not None:
        device, host = gather["on_device"]["cases"], gather["from_host"]["cases"]
        long_rows = [case for case in device if case["row_bytes"] >= LONG]
        short_rows = [case for case in device if case["row_bytes"] == SHORT]
        dense = [case for case in host if case["density"] >= MOST]
        lines += [
            _verdict(f"on the device, rows of {LONG} bytes and more", long_rows, ON_DEVICE),
            _verdict(f"on the device, rows of {SHORT} bytes", short_rows, SHORT_ON_DEVICE),
            _verdict(f"from the host, {MOST:.0%} wanted or more", dense, FROM_HOST),
        ]
    if join is not None:
        lines.append(f"- join of {join['rows']:,} against as many: {join['seconds']:.3f} s")
    return lines


def _verdict(name: str, cases: list[dict[str, Any]], limit: float) -> str:
    """Of the slowest of these cases."""
    share = min(case["share_of_copy"] for case in cases)
    met = "yes" if share >= limit else "**no**"
    return f"- {name}: {share:.0%} of the copy's bandwidth; target {limit:.0%}; met: {met}"


def join_on_device(folder: Path) -> dict[str, Any]:
    """Two vocabulary files joined on the GPU, compared with what the tokens' numbers say."""
    import torch
    from tokens import TokenChange, new_vocab, old_vocab

    import torch_warmstart as tws

    change = TokenChange(ROWS, ROWS, 0.8)
    change.write(folder)
    times = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        started = time.perf_counter()
        rows, _ = tws.generate_vocab_remapping(new_vocab(folder), old_vocab(folder), device="cuda")
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
        if rows.cpu().tolist() != change.remapping.tolist():
            raise SystemExit("The join on the GPU gave other rows.")
    return {"rows": ROWS, "seconds": sorted(times)[len(times) // 2], "first": times[0]}


if __name__ == "__main__":
    sys.exit(main())
