"""The ranks of the tests: two for all of them, more where they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from ranks import Ranks, started


@pytest.fixture(scope="session")
def two() -> Iterator[Ranks]:
    """Two ranks, which all tests of a worker share."""
    with started(2) as ranks:
        yield ranks


@pytest.fixture(scope="session", params=[4, 8])
def many(request: pytest.FixtureRequest) -> Iterator[Ranks]:
    """More of them, where they are asked for."""
    if "TORCH_WARMSTART_RANKS" not in os.environ:
        pytest.skip("four and eight ranks are `make distributed`")
    with started(request.param) as ranks:
        yield ranks
