"""What the benchmarks of initialisers say, at toy sizes: they agree with loops, and help."""

from __future__ import annotations

import importlib
import math
import statistics
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what is small is slower with more, most of all on a busy machine
    yield importlib.import_module
    torch.set_num_threads(threads)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_each_makes_the_rows_that_a_loop_makes(benchmark):
    sizes = ["--old", "300", "--new", "150", "--width", "12", "--vector-width", "24", "--k", "5"]
    for one in benchmark("initializers").main(sizes):
        assert one.loop_rows == 150
        assert one.max_difference < 1e-3, one.method


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_what_a_tokenizer_cuts_makes_the_rows_that_a_loop_makes(benchmark):
    pytest.importorskip("transformers")
    sizes = ["--new", "60", "--width", "8", "--methods", "subword-cut"]
    (one,) = benchmark("initializers").main(sizes)
    assert one.loop_rows == 60
    assert one.max_difference < 1e-5
    assert one.library_seconds > 0


def test_new_items_begin_better_with_their_category_than_with_the_mean_or_zeros(benchmark):
    runs = [benchmark("initializer_quality").recommender(seed) for seed in range(5)]
    zeros, mean, of_group = (statistics.median(run[name] for run in runs) for name in runs[0])
    assert of_group < mean < zeros


def test_a_language_model_s_tokenizer_is_exchanged_by_every_method(benchmark):
    quality = benchmark("initializer_quality")
    found = quality.language(0, quality.TINY)
    assert len(found) == 14
    assert all(math.isfinite(perplexity) for perplexity in found.values())
    assert found["`mean()`"] < found["`torch.nn.init.normal_`"]
