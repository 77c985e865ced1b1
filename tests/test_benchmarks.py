"""The benchmarks work at toy sizes, find wrong results, and say what they leave out."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import bench  # noqa: E402
import lookups  # noqa: E402
import machine  # noqa: E402
import measure  # noqa: E402
import show  # noqa: E402
from case import (  # noqa: E402
    CaseResult,
    Contender,
    Prepared,
    Sizes,
    Summary,
    at_least,
    at_most,
)
from tokens import TokenChange, new_vocab, old_vocab  # noqa: E402

# Who takes part; of benchmarks with many sizes or contenders, those that are not in another one.
PEERS = {
    "vocab": "ours,ours_first,tf,tf_keras,polars,pyarrow,dict,rowloop",
    "join": "ours,tf,polars,pyarrow,dict",
    "load": "ours,ours_unverified,tf,safetensors,torch,torch_mapped,crc,ours_cold,safetensors_cold",
    "index": "ours,tf",
    "memory": "ours",
    "growth": "ours",
    "imports": "ours,names",
    "first": "ours",
    "entries": "ours,polars,pyarrow,dict",
    "tables": "ours,ours_first,polars,dict,tf",
    "variables": "ours,safetensors",
    "cast": "ours,polars,dict",
    "keras": "ours,h5py,direct",
    "slots": "ours,plain",
    "names": "ours,error",
    "join_growth": "ours,polars",
}


def run_bench(out: Path, *arguments: str) -> dict[str, dict]:
    """Runs the command and returns what its JSON files say, by benchmark."""
    command = [sys.executable, str(BENCHMARKS / "bench.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command += ["--quick", "--runs", "1", "--out", str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.NAMES)
def test_a_benchmark_runs_and_results_are_right(name, tmp_path):
    peers = PEERS[name]
    record = run_bench(tmp_path, name, "--peers", peers)[name]
    contenders = bench.load_benchmark(name).contenders
    there = {
        peer
        for peer in peers.split(",")
        if all(importlib.util.find_spec(package) for package in contenders[peer].needs)
    }
    assert record["cases"]
    for case in record["cases"]:
        assert set(case["runs"]) == there
        assert set(case["left_out"]) == set(contenders) - there
        assert case["results_equal"]
        assert all(run["seconds"] > 0 for runs in case["runs"].values() for run in runs)
    assert f"### {record['title']}\n" in (tmp_path / "latest.md").read_text()
    assert {path.stem for path in tmp_path.glob("*.png")} == {"memory", "growth"} & {name}
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]  # inputs are gone


def test_a_wrong_result_ends_with_an_error_and_is_named(tmp_path, monkeypatch, capsys):
    def start_worker(_name, role, _case, _folder):
        return {"sha256": "right" if role in (bench.MAKE, "ours") else "wrong", "seconds": 1.0}

    monkeypatch.setattr(bench, "start_worker", start_worker)
    monkeypatch.setattr(sys, "argv", ["bench.py", "join", "--quick", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="results differ"):
        bench.main()
    assert "The results of 20,000 against 20,000 are not what" in capsys.readouterr().out
    assert json.loads((tmp_path / "join.json").read_text())["cases"][0]["results_equal"] is False


def test_first_calls_come_without_a_toy_before_them(monkeypatch, tmp_path):
    done = []

    def prepare(case, folder):
        return Prepared(lambda: done.append((case["rows"], folder.name)), lambda: "right")

    peers = {"ours": Contender("", prepare), "first": Contender("", prepare, is_first=True)}
    benchmark = replace(bench.load_benchmark("join"), contenders=peers)
    monkeypatch.setattr(bench, "load_benchmark", lambda _name: benchmark)
    here = tmp_path / "inputs"
    for peer in peers:
        assert bench.work("join", peer, '{"rows": 9}', str(here))["sha256"] == "right"
    assert done == [(1_000, bench.TOY), (9, "inputs"), (9, "inputs")]


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system cannot drop a file")
def test_cold_files_are_dropped_before_the_run(monkeypatch, tmp_path):
    path, told = tmp_path / "file", []
    path.write_bytes(b"x" * 5_000)
    monkeypatch.setattr(os, "posix_fadvise", lambda *advice: told.append(advice[1:]))
    prepared = Prepared(lambda: told.append("run"), lambda: "right", cold=[path])
    assert measure.measure(prepared)["sha256"] == "right"
    assert told == [(0, 0, os.POSIX_FADV_DONTNEED), "run"]


@pytest.mark.parametrize(
    ("asked", "wanted", "runs"),
    [(None, None, 5), (None, 11, 11), (3, 11, 3), (3, 1, 1), (3, None, 3)],
)
def test_runs_are_those_asked_for_unless_a_case_wants_fewer(asked, wanted, runs, monkeypatch):
    benchmark = bench.load_benchmark("join")
    case = replace(benchmark.cases(Sizes(quick=True))[0], contenders=("ours",), runs=wanted)
    monkeypatch.setattr(bench, "start_worker", lambda *_: {"sha256": "right"})
    result = CaseResult(case, {"sha256": "right"})
    options = argparse.Namespace(runs=asked, peers=None)
    bench.run_contenders("join", benchmark, result, Path(), options)
    assert len(result.runs["ours"]) == runs


def test_who_is_left_out_is_said(tmp_path):
    join = bench.load_benchmark("join")
    absent = Contender("Someone", join.contenders["dict"].prepare, ("no_such_package",))
    benchmark = replace(join, contenders={**join.contenders, "someone": absent})
    assert bench.why_left_out(benchmark, "someone", None) == "no_such_package not installed"
    assert bench.why_left_out(benchmark, "dict", ["ours"]) == "not among --peers"
    assert bench.why_left_out(benchmark, "ours", ["ours"]) is None


@pytest.mark.parametrize("name", bench.NAMES)
def test_the_listed_sizes_have_targets(name):
    benchmark = bench.load_benchmark(name)
    cases = benchmark.cases(Sizes())
    if name == "memory":
        assert cases[-1].parameters["table"] > machine.memory_limit() * 1.1
    runs = [{"seconds": 1.0, "cpu_seconds": 1.0, "beyond_result": 1e6}]
    summaries = {
        case.name: Summary(case.parameters, dict.fromkeys(case.contenders, runs)) for case in cases
    }
    verdicts = benchmark.judge(summaries)
    assert verdicts
    assert all(verdict.met is not None for verdict in verdicts)


def test_a_target_is_met_missed_or_not_measured():
    assert at_least("t", 2.0, 1.5).met
    assert at_least("t", 1.4, 1.5).met is False
    assert at_most("t", 49.0, 50, "ms").measured == "49 ms"
    assert at_most("t", 51.0, 50, "ms").met is False
    assert at_least("t", None, 1.5).met is None


def test_ratios_are_to_the_fastest_and_only_when_all_ran():
    seconds = {"ours": [2.0, 1.0, 9.0], "dict": [8.0], "polars": [3.0]}
    runs = {peer: [{"seconds": one} for one in of_one] for peer, of_one in seconds.items()}
    summary = Summary({}, runs)
    assert summary.times_faster("dict", "polars") == 1.5
    assert summary.times_faster("dict", "pyarrow") is None
    assert summary.beyond("ours") is None  # where the system does not tell


def test_a_result_is_compared_with_what_was_worked_out_from_the_inputs():
    case = bench.load_benchmark("join").cases(Sizes(quick=True))[0]
    right, wrong = {"sha256": "a"}, {"sha256": "b"}
    assert CaseResult(case, {"sha256": "a"}, {"ours": [right], "dict": [right]}).equal
    assert not CaseResult(case, {"sha256": "a"}, {"ours": [right], "dict": [wrong]}).equal
    assert not CaseResult(case, {"sha256": "c"}, {"ours": [right], "dict": [right]}).equal


def test_a_section_shows_ratios_memory_and_targets():
    runs = {
        "ours": [{"seconds": 2.0, "peak_resident": 3 << 20, "beyond_result": 1 << 20}],
        "dict": [{"seconds": 25.0, "peak_resident": 5 << 20, "beyond_result": None}],
    }
    case = {"name": "ten rows", "left_out": {"tf": "why"}, "results_equal": True, "runs": runs}
    text = show.show_benchmark(
        {
            "title": "Title",
            "about": "About.",
            "beyond": "beyond",
            "labels": {"ours": "ours", "dict": "a dict", "tf": "TensorFlow"},
            "machine": {"cores": "2", "load before": "0.5"},
            "cases": [case],
            "targets": [{"target": "fast", "measured": "12.5 x", "met": True}],
        }
    )
    assert text == (
        "cores: 2\n\n### Title\n\nAbout.\n\n"
        "|          |        | time   | least to most | peak  | beyond |\n"
        "| -------- | ------ | ------ | ------------- | ----- | ------ |\n"
        "| ten rows | ours   | 1.00 x | 1.00 to 1.00  | 3 MiB | 1 MiB  |\n"
        "|          | a dict | 12.5 x | 12.5 to 12.5  | 5 MiB |        |\n\n"
        "- Target: fast. Measured: 12.5 x. Met: yes\n"
        "- Left out, why: TensorFlow\n"
        "- Runs of each: 1, medians shown; load before: 0.5\n"
    )


def test_vocabularies_are_what_the_ids_say(tmp_path):
    change = TokenChange(500, 300, 0.8)
    change.write(tmp_path)
    old, new = (lookups.read_tokens(path(tmp_path)) for path in (old_vocab, new_vocab))
    assert (len(set(old)), len(set(new))) == (500, 300)
    assert {len(token) for token in old + new} <= set(range(16, 25))
    assert len(set(old) & set(new)) == 240
    expected = [old.index(token) if token in old else -1 for token in new]
    assert change.remapping.tolist() == expected


@pytest.mark.parametrize("library", ["dict", "polars", "pyarrow"])
def test_every_lookup_by_hand_is_right(library, tmp_path):
    if library != "dict":
        pytest.importorskip(library)
    change = TokenChange(500, 300, 0.8)
    change.write(tmp_path)
    rows = getattr(lookups, f"with_{library}")()(tmp_path)
    assert rows.dtype == np.int64
    assert np.array_equal(rows, change.remapping)
