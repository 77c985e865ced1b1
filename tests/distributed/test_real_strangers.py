"""DeepSpeed's and Megatron's own models are refused, and the line works: `make strangers`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from ranks import Ranks, started

HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
HAS_MEGATRON = importlib.util.find_spec("megatron") is not None


@pytest.fixture
def own() -> Iterator[Ranks]:
    """Ranks for one test: both libraries leave much behind in a process."""
    with started(2) as ranks:
        yield ranks


@pytest.mark.skipif(not HAS_DEEPSPEED, reason="DeepSpeed comes with `make strangers`")
def test_zero_3_is_refused_and_filled_while_it_is_gathered(own: Ranks) -> None:
    for text, wrong in own.call("zero_jobs", "zero_3"):
        assert text.startswith("table.weight is partitioned by DeepSpeed's ZeRO stage 3")
        assert "GatheredParameters(list(model.parameters()), modifier_rank=0)" in text
        assert wrong == []


@pytest.mark.skipif(not HAS_MEGATRON, reason="Megatron comes with `make strangers`")
def test_megatrons_pieces_are_refused_and_a_whole_one_is_filled(own: Ranks) -> None:
    for text in own.call("megatron_jobs", "tensor_parallel", 2):
        assert text.startswith("table.weight is a piece of a parameter of Megatron-LM's")
        assert "tensor_model_parallel_size=1" in text
    assert own.call("megatron_jobs", "tensor_parallel", 1) == ["", ""]
