"""What is handed out is the caller's: changed, it changes neither file nor what is read next."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from every_format import FURTHER, WRITERS

import torch_warmstart as tws

ALL = {**WRITERS, **FURTHER}


@pytest.mark.parametrize("kind", ALL)
def test_a_tensor_that_was_changed_is_read_as_it_is_in_the_file(kind: str, tmp_path: Path) -> None:
    name = ALL[kind](tmp_path)
    path = tmp_path if name in ("", ".metadata") else tmp_path / name
    with tws.load_checkpoint(path) as checkpoint:
        for key in list(checkpoint)[:2]:
            first = checkpoint.get_tensor(key)
            expected = first.clone()
            first.zero_()
            some = checkpoint.get_tensor(key, [3, 5])
            assert torch.equal(some, expected[[3, 5]])
            some.fill_(-1)
            assert torch.equal(checkpoint.get_tensor(key), expected)


def test_ids_of_a_table_that_were_changed_are_read_as_they_are_in_the_file(tmp_path: Path) -> None:
    ALL["hugectr"](tmp_path)
    with tws.load_checkpoint(tmp_path) as checkpoint:
        changed = [checkpoint.get_tensor(key).zero_() for key in checkpoint]
        (table,) = checkpoint.tables().values()
        assert list(table.keys.entries) == list(range(60))
        assert all(not tensor.any() for tensor in changed)
