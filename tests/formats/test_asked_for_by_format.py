"""`format=` names one format and nothing else is tried: any other file is our error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from every_format import FURTHER, WRITERS

import torch_warmstart as tws
from torch_warmstart.formats.registry import FORMATS

ALL = {**WRITERS, **FURTHER}


@pytest.mark.parametrize("kind", ALL)
def test_a_file_of_another_format_is_our_error(kind: str, tmp_path: Path) -> None:
    name = ALL[kind](tmp_path)
    path = tmp_path if name in ("", ".metadata") else tmp_path / name
    opened = []
    for one in FORMATS:
        with contextlib.suppress(tws.WarmStartError), tws.load_checkpoint(path, format=one.name):
            opened.append(one.name)
    assert opened
