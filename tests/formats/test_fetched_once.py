"""Of a remote checkpoint no byte is fetched twice, in any format, from opening it to the end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from every_format import FURTHER, WRITERS, tensors
from remote_files import Requests, put, remote, requests, upload
from torch import nn

import torch_warmstart as tws

__all__ = ["remote", "requests"]  # fixtures
ALL = {**WRITERS, **FURTHER}


def fetched_twice(ranges: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    found, reached = [], ("", 0)
    for name, start, stop in sorted(ranges):
        if (name, start) < reached:
            found.append((name, start, stop))
        reached = max(reached, (name, stop))
    return found


def url_of(kind: str, folder: Path, remote: str) -> str:
    name = ALL[kind](folder)
    upload(folder, remote)
    return remote if name in ("", ".metadata") else f"{remote}/{name}"


@pytest.mark.parametrize("kind", ALL)
def test_nothing_is_fetched_twice(
    kind: str, tmp_path: Path, remote: str, requests: Requests
) -> None:
    url = url_of(kind, tmp_path, remote)
    with tws.load_checkpoint(url) as checkpoint:
        first = min(checkpoint)
        checkpoint.get_tensor(first, [5, 40])
        checkpoint.verify(first)
        for key in checkpoint:
            checkpoint.get_tensor(key)
    assert requests.ranges
    assert fetched_twice(requests.ranges) == []


@pytest.mark.parametrize("kind", ["tf-v1", "monolith"])  # which are opened more than once
def test_copies_take_no_more_room_than_the_files_have(
    kind: str, tmp_path: Path, remote: str
) -> None:
    url = url_of(kind, tmp_path, remote)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    with tws.load_checkpoint(url, mirror_limit=size) as checkpoint:
        assert all(len(checkpoint.get_tensor(key)) == 60 for key in checkpoint)


@pytest.mark.parametrize("named_by", ["", "/checkpoint", "/m.index", "/m"])
def test_a_state_file_is_read_once(
    named_by: str, tmp_path: Path, remote: str, requests: Requests
) -> None:
    url_of("tf-v2", tmp_path, remote)
    put(f"{remote}/checkpoint", b'model_checkpoint_path: "m"\n')
    model = nn.ModuleDict({f"part{n}": nn.Embedding(60, 8) for n in range(6)})
    tws.warm_start(model, f"{remote}{named_by}")
    assert torch.equal(model["part1"].weight, tensors()["part1.weight"])
    assert fetched_twice(requests.ranges) == []


def test_what_was_replaced_is_fetched_anew(remote: str) -> None:
    storage = tws.WarmStartSettings("x").storage
    with storage.kept():
        one = storage.open(put(f"{remote}/f", b"first"))
        assert one.read(0, 5).tobytes() == b"first"
        again = storage.open(f"{remote}/f")
        assert again.read(0, 5).tobytes() == b"first"
        put(f"{remote}/f", b"other")
        assert storage.open(f"{remote}/f").read(0, 5).tobytes() == b"other"
