"""What the benchmark of sources compares is one vocabulary, whatever holds it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_all_sources_hold_the_same_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    results = importlib.import_module("sources").main(["--entries", "3000"])
    torch.set_num_threads(threads)
    assert len(results) == 8
    assert len({one.fingerprint for one in results}) == 1
    assert all(one.objects < 1_000 for one in results)  # none for an entry
