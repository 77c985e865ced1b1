"""For `try_wheel`, as a plugin of pytest: a test that imports what is not installed is skipped."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator
from typing import Any

import pytest

_OPTIONAL = {"keras", "polars", "sentencepiece", "tensorflow", "tf_keras", "tiktoken"}
_OPTIONAL |= {"tokenizers", "transformers"}


def _is_installed(name: str) -> bool:
    """Whether there is a package; a folder of tests, such as tests/formats/keras, is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


for _name in _OPTIONAL:
    if not _is_installed(_name):
        sys.modules[_name] = None  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if error.name in _OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise
