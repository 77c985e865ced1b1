"""For `try_wheel`, as a plugin of pytest: a test that imports what is not installed is skipped."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Generator
from typing import Any

import pytest

_OPTIONAL = {"keras", "polars", "sentencepiece", "tensorflow", "tf_keras", "tiktoken"}
_OPTIONAL |= {"tokenizers", "transformers"}
# Before pytest's `pythonpath` makes folders of tests, such as tests/formats/keras, look like them.
for _name in _OPTIONAL:
    if importlib.util.find_spec(_name) is None:
        sys.modules[_name] = None  # type: ignore[assignment]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    try:
        return (yield)
    except ModuleNotFoundError as error:
        if error.name in _OPTIONAL:
            pytest.skip(f"{error.name} is not installed")
        raise
