"""A vocabulary that is loaded is a value: its file may be written anew while it is used."""

from __future__ import annotations

import pytest

import torch_warmstart as tws

ENTRIES = [f"entry {number:06}" for number in range(30_000)]  # more bytes than are copied anyway


def _lines(path):
    path.write_text("\n".join(ENTRIES) + "\n")


def _saved(path):
    tws.Vocabulary.load(ENTRIES).save(path)


@pytest.mark.parametrize(("name", "write"), [("v.txt", _lines), ("v.vocab", _saved)])
@pytest.mark.parametrize("how", ["other bytes", "fewer"])
def test_entries_stay_what_they_were(tmp_path, name, write, how):
    """Fewer bytes ended the process, others were taken for its entries."""
    path = tmp_path / name
    write(path)
    loaded = tws.Vocabulary.load(path)
    with open(path, "r+b") as file:
        if how == "other bytes":
            file.write(b"x" * path.stat().st_size)
        else:
            file.truncate(0)
    assert loaded.rows([ENTRIES[7], ENTRIES[-1]]).tolist() == [7, len(ENTRIES) - 1]
    assert list(loaded.entries)[:2] == [entry.encode() for entry in ENTRIES[:2]]
