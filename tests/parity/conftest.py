"""What the parity tests share."""

from __future__ import annotations

import pytest
from engines import Ours, TensorFlow


@pytest.fixture(params=["ours", pytest.param("tensorflow", marks=pytest.mark.tensorflow)])
def engine(request: pytest.FixtureRequest) -> Ours | TensorFlow:
    """Each engine in turn: what a test expects of ours is what TensorFlow does."""
    if request.param == "ours":
        return Ours()
    pytest.importorskip("tensorflow")
    return TensorFlow()
