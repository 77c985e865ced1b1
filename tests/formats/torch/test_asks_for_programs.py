"""A file that asks for what runs programs is refused with its name, as pickles spell it."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import torch_warmstart as tws


class Asks:
    """Something that is pickled as a call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return self._function, ("touch made",)


@pytest.mark.parametrize(
    "function",
    [os.system, subprocess.Popen, subprocess.run, subprocess.check_output, builtins.eval, io.open],
)
def test_it_is_refused_though_the_tensors_are_plain(
    function: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protocol 2, which torch writes, calls `subprocess` as Python 2 did: `commands`."""
    monkeypatch.chdir(tmp_path)
    state = {"model": {"w": torch.ones(2)}, "asks": Asks(function)}
    torch.save(state, "m.pt")
    with pytest.raises(tws.UnsupportedError, match="could run code"):
        tws.load_checkpoint("m.pt")
    assert os.listdir(tmp_path) == ["m.pt"]


def test_it_is_named_though_something_harmless_comes_first(tmp_path: Path) -> None:
    """Otherwise the advice is to allow what comes first."""
    state = {"w": torch.ones(2), "a": argparse.Namespace(lr=1), "asks": Asks(os.system)}
    torch.save(state, tmp_path / "m.pt")
    with pytest.raises(tws.UnsupportedError, match=rf"asks for {os.name}\.system") as refused:
        tws.load_checkpoint(tmp_path / "m.pt")
    assert "Namespace" not in str(refused.value)
    assert "safe_globals" not in str(refused.value)
