"""Shared fixtures and settings of the tests."""

from __future__ import annotations

import contextlib
import os

import pytest
import torch
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before any test imports TensorFlow
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Before any test imports gcsfs, which would ask Google about the emulator's buckets.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

# Before any test imports TensorFlow: behind it, Triton, which torch imports when it makes an
# optimizer, ends the process (tensorflow/tensorflow#124205).
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

settings.register_profile("default", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("nightly", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(autouse=True)
def _wide_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test looks for in a plan is in one line; tests of the layout say other widths."""
    monkeypatch.setenv("COLUMNS", "100000")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device in turn, so that one test body serves both."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)
