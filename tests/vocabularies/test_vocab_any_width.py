"""Numpy's text of any width is what Python has of it, with pyarrow beside it and without."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import torch_warmstart as tws

pytestmark = pytest.mark.skipif(
    not hasattr(np.dtypes, "StringDType"), reason="text of any width came with numpy 2"
)
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=1)


@pytest.fixture(params=["without", "old", "with"])
def arrow(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether pyarrow is there, and knows this kind of text."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        return "without"
    library = pytest.importorskip("pyarrow")

    def refuse(*_: Any, **__: Any) -> None:
        raise library.ArrowNotImplementedError("Unsupported numpy type 2056")

    if request.param == "old":
        monkeypatch.setattr(library, "array", refuse)
    return str(request.param)


def array_of(values: list[Any], **more: Any) -> Any:
    return np.array(values, dtype=np.dtypes.StringDType(**more))


def entries_of(array: Any) -> list[Any]:
    return list(tws.Vocabulary.load(array).entries)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(texts=TEXTS)
def test_entries_are_python_s_with_zeros_at_their_ends_too(arrow: str, texts: list[str]) -> None:
    assert entries_of(array_of(texts)) == [text.encode() for text in texts]


@pytest.mark.usefixtures("arrow")
@pytest.mark.parametrize("nothing", [None, np.nan, "none of them", object()])
def test_what_is_missing_is_a_gap(nothing: Any) -> None:
    array = array_of(["a", "", "b\0", "é"], na_object=nothing)
    array[3] = nothing
    assert entries_of(array) == [*(text.encode() for text in array.tolist()[:3]), None]


@pytest.mark.usefixtures("arrow")
def test_parts_of_an_array_are_those_parts() -> None:
    array = array_of([f"{'x' * (number % 40)}{number}" for number in range(999)])
    for part in (array[::-3], array[5:700:7]):
        assert entries_of(part) == [text.encode() for text in part.tolist()]


@pytest.mark.parametrize("letter", ["x", "é"])
def test_a_long_text_does_not_make_room_for_all_of_its_length(
    letter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    texts = [str(number) for number in range(20_000)]
    texts[7], texts[4_000] = letter * 300_000, letter * 5_000
    array = array_of(texts)
    tracemalloc.start()
    try:
        found = tws.Vocabulary.load(array)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 400 << 20  # with all at the width of the longest 6 GB, or four times that
    assert list(found.entries) == [text.encode() for text in texts]
