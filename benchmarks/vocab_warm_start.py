"""Times a warm start through a vocabulary change: torch_warmstart, TensorFlow, and by hand.

    python benchmarks/vocab_warm_start.py --rows 2000000 --dim 64 --json result.json

Every run is a process of its own, and the contenders take turns. See benchmarks/README.md for what
is measured and what is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from contenders import CONTENDERS, prepare_stages
from inputs import HAS_TENSORFLOW, Inputs, make_inputs
from measure import describe_machine, measure, run_worker
from rich.console import Console
from show import show_inputs, show_machine, show_memory, show_seconds, show_stages

OUT = Path(__file__).resolve().parent / "out"
MAKE_INPUTS, STAGES = "inputs", "stages"  # roles of a worker that are not contenders

Run = dict[str, Any]


def main() -> None:
    options = parse_options()
    if options.worker:
        role, inputs = options.worker
        print(json.dumps(work(role, Inputs(**json.loads(inputs)))))
        return
    if "tf" in options.peers and not HAS_TENSORFLOW:
        sys.exit("TensorFlow is not installed here: use --peers ours,dict")
    options.work_dir.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="vocab-", dir=options.work_dir))
    try:
        result = compare(options, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if not result["results_equal"]:
        sys.exit("The results differ.")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the old and the new table")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--overlap", type=float, default=0.8, help="share of tokens that stay")
    parser.add_argument("--runs", type=int, default=5, help="of each contender")
    parser.add_argument("--peers", type=_peers, default="ours,tf,dict", help=",".join(CONTENDERS))
    parser.add_argument("--stages", action="store_true", help="also time the parts of ours")
    parser.add_argument(
        "--work-dir", type=Path, default=OUT, help="where a folder for the inputs is made"
    )
    parser.add_argument("--keep", action="store_true", help="leave the inputs where they are")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _peers(text: str) -> list[str]:
    peers = text.split(",")
    for peer in peers:
        if peer not in CONTENDERS:
            raise argparse.ArgumentTypeError(f"{peer!r} is none of {', '.join(CONTENDERS)}")
    return peers


def work(role: str, inputs: Inputs) -> Run:
    """A worker's whole life."""
    if role == MAKE_INPUTS:
        return make_inputs(inputs)
    prepare = prepare_stages if role == STAGES else CONTENDERS[role]
    return measure(prepare(inputs), inputs)


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Makes the inputs, runs everybody in turn, prints the tables and returns the numbers."""
    console = Console(highlight=False)
    machine = describe_machine()
    inputs = Inputs(str(folder), options.rows, options.dim, options.overlap)
    with console.status("Making the inputs"):
        made = start_worker(MAKE_INPUTS, inputs)
    roles = [*options.peers, *([STAGES] if options.stages else [])]
    runs: dict[str, list[Run]] = {role: [] for role in roles}
    with console.status("") as status:
        for number in range(options.runs):  # in turn, so that a drift of the machine hits them all
            for role in roles:
                status.update(f"Run {number + 1} of {options.runs}: {role}")
                runs[role].append(start_worker(role, inputs))
    equal = {run["sha256"] for of_role in runs.values() for run in of_role} == {made["sha256"]}
    console.print(show_machine(machine), show_inputs(inputs, made), sep="\n", soft_wrap=True)
    peers = {peer: runs[peer] for peer in options.peers}
    console.print(show_seconds(peers), show_memory(peers), sep="\n")
    if options.stages:
        console.print(show_stages(runs[STAGES]))
    console.print("Results equal." if equal else "[red]Results differ.")
    sizes = {"rows": inputs.rows, "dim": inputs.dim, "overlap": inputs.overlap}
    return {"machine": machine, "inputs": sizes | made, "results_equal": equal, "runs": runs}


def start_worker(role: str, inputs: Inputs) -> Run:
    """Runs one worker to its end."""
    command = [sys.executable, __file__, "--worker", role, inputs.as_json()]
    return run_worker(command, Path(inputs.folder, "worker.log"))


if __name__ == "__main__":
    main()
