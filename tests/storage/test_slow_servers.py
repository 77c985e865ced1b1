"""Web servers that drip, fail, or have an answer for every path."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from recording_server import Server, serving
from safetensors.torch import save

import torch_warmstart as tw
from torch_warmstart.storage import Storage

FILE = save({"weight": torch.arange(6.0)})


@pytest.fixture
def web() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    with serving() as server:
        server.files["/m.safetensors"] = FILE
        yield server
        if server.drips is not None:
            server.drips.set()


def test_a_server_that_drips_has_so_many_seconds(web: Server) -> None:
    source = Storage({"timeout": 0.2}).open(f"{web.url}/m.safetensors")
    web.drips = threading.Event()
    with pytest.raises(
        tw.StorageError, match="longer than .* storage_options={'timeout': seconds}"
    ):
        source.read(0, 20)


def test_what_is_fetched_in_time_is_taken(web: Server) -> None:
    checkpoint = tw.load_checkpoint(f"{web.url}/m.safetensors", storage_options={"timeout": 60})
    assert checkpoint.get_tensor("weight").tolist() == list(range(6))


@pytest.mark.parametrize("timeout", [0, -1, "x", True, float("nan")])
def test_no_time_is_refused(web: Server, timeout: object) -> None:
    with pytest.raises(tw.SettingsError, match="how many seconds one request may take"):
        Storage({"timeout": timeout}).open(f"{web.url}/m.safetensors")


@pytest.mark.parametrize("status", [500, 503, 403, 401, 429])
@pytest.mark.parametrize("name", ["m.safetensors", "model", "m.index", "checkpoint"])
def test_a_server_that_fails_does_not_say_that_nothing_is_there(
    web: Server, status: int, name: str
) -> None:
    web.status = status
    with pytest.raises(tw.StorageError, match=str(status)):
        tw.load_checkpoint(f"{web.url}/{name}")


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_not_found(web: Server, status: int) -> None:
    web.status = status
    with pytest.raises(tw.CheckpointNotFoundError):
        tw.load_checkpoint(f"{web.url}/m.safetensors")


def test_a_server_that_cannot_be_reached_is_no_missing_file() -> None:
    with pytest.raises(tw.StorageError, match="Connect"):
        tw.load_checkpoint("http://127.0.0.1:9/m.safetensors")


@pytest.mark.parametrize("name", ["m.safetensors", "model", "a/m"])
@pytest.mark.parametrize("answer", [b"<html>", b"", FILE])
def test_a_file_does_not_depend_on_what_else_its_server_has(
    web: Server, name: str, answer: bytes
) -> None:
    web.files[f"/{name}"] = FILE
    web.everywhere = answer
    checkpoint = tw.load_checkpoint(f"{web.url}/{name}")
    assert checkpoint.get_tensor("weight").tolist() == list(range(6))
