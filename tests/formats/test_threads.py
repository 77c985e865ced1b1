"""One open checkpoint serves many threads: each gets what one alone would get."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from every_format import FURTHER, WRITERS
from formats_helpers import raw
from fsspec.implementations.memory import MemoryFileSystem
from recording_server import serving
from remote_files import remote, upload

import torch_warmstart as tw
from torch_warmstart.formats import Checkpoint

__all__ = ["remote"]  # a fixture


ALL = {**WRITERS, **FURTHER}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    made = {}
    for name, write in ALL.items():
        folder = tmp_path_factory.mktemp(name)
        made[name] = folder, write(folder)
    return made


@pytest.fixture(params=["local", "memory", "http"])
def put(request: pytest.FixtureRequest, remote: str) -> Iterator[Callable[[Path], str]]:
    """Where a folder's files are to be read from."""
    if request.param == "local":
        yield str
    elif request.param == "memory":
        yield lambda folder: upload(folder, remote)
    else:
        pytest.importorskip("aiohttp")
        with serving() as server:

            def served(folder: Path) -> str:
                if folder.name.startswith(("hugectr", "dynamicemb", "monolith")):
                    pytest.skip("a folder is listed, and the web has no way to do so")
                for path in folder.iterdir():
                    server.files[f"/m/{path.name}"] = path.read_bytes()
                return f"{server.url}/m"

            yield served


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def read_all(checkpoint: Checkpoint, seed: int) -> dict[str, Any]:
    """Everything, in an order of its own: whole tensors, some rows, and rows in place."""
    rows = torch.tensor([3, 0, 41, 41, 17])
    found: dict[str, Any] = {}
    keys = sorted(checkpoint)
    random.Random(seed).shuffle(keys)
    for key in keys:
        checkpoint.verify(key)
        found[key] = raw(checkpoint.get_tensor(key)), raw(checkpoint.get_tensor(key, rows))
        placed = []
        for first, block in checkpoint.row_blocks(key, rows):
            inside = sorted({row - first for row in rows.tolist() if 0 <= row - first < len(block)})
            placed += [raw(block[row].clone()) for row in inside]
        found[f"{key} in place"] = sorted(placed)
    return found


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait()
        return act(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.parametrize("count", [8, 32])
@pytest.mark.parametrize("name", ALL)
def test_threads_get_what_one_alone_gets(
    folders: dict[str, tuple[Path, str]], put: Callable[[Path], str], name: str, count: int
) -> None:
    folder, file = folders[name]
    url = f"{put(folder)}/{file}"
    alone = read_all(tw.load_checkpoint(url), 0)
    for _ in range(1 if count > 8 else 3):
        checkpoint = tw.load_checkpoint(url)
        for found in together(count, lambda seed, of=checkpoint: read_all(of, seed)):
            assert found == alone


@pytest.mark.parametrize("name", ALL)
def test_a_checkpoint_may_be_closed_while_others_read(
    folders: dict[str, tuple[Path, str]], put: Callable[[Path], str], name: str
) -> None:
    folder, file = folders[name]
    url = f"{put(folder)}/{file}"
    checkpoint = tw.load_checkpoint(url)
    alone = read_all(checkpoint, 0)

    def act(seed: int) -> Any:
        if seed % 2:
            return read_all(checkpoint, seed)
        for _ in range(20):
            checkpoint.close()
        return alone

    assert together(8, act) == [alone] * 8


def test_no_byte_is_fetched_by_two_threads(
    folders: dict[str, tuple[Path, str]], remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = folders["safetensors"]
    checkpoint = tw.load_checkpoint(f"{upload(folder, remote)}/{file}")
    asked: list[tuple[int, int]] = []
    fetch = MemoryFileSystem.cat_ranges

    def counting(self: Any, paths: Any, starts: Any, ends: Any, **options: Any) -> Any:
        asked.extend(zip(starts, ends, strict=True))
        return fetch(self, paths, starts, ends, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", counting)
    together(16, lambda seed: read_all(checkpoint, seed))
    asked.sort()
    assert all(stop <= start for (_, stop), (start, _) in itertools.pairwise(asked))


def test_who_waits_for_a_fetch_that_fails_fetches_by_itself(
    folders: dict[str, tuple[Path, str]], remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = folders["safetensors"]
    checkpoint = tw.load_checkpoint(f"{upload(folder, remote)}/{file}")
    alone = tw.load_checkpoint(folder / file).get_tensor("part3.weight")
    fetch, failures = MemoryFileSystem.cat_ranges, iter([True] * 3)

    def failing(self: Any, *arguments: Any, **options: Any) -> Any:
        if next(failures, False):
            raise OSError("reset by peer")
        return fetch(self, *arguments, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", failing)

    def act(_: int) -> Any:
        try:
            return checkpoint.get_tensor("part3.weight")
        except tw.StorageError as error:
            return error

    found = together(8, act)
    assert sum(isinstance(one, tw.StorageError) for one in found) == 3
    assert all(torch.equal(one, alone) for one in found if not isinstance(one, tw.StorageError))


@pytest.mark.parametrize("count", [8])
def test_models_are_started_from_one_open_checkpoint(
    folders: dict[str, tuple[Path, str]], put: Callable[[Path], str], count: int
) -> None:
    folder, file = folders["safetensors"]
    checkpoint = tw.load_checkpoint(f"{put(folder)}/{file}")
    wanted = tw.load_checkpoint(folder / file).get_tensor("part2.weight")

    def start(_: int) -> torch.Tensor:
        model = torch.nn.Module()
        model.part2 = torch.nn.Linear(8, 60, bias=False)
        tw.warm_start(model, checkpoint)
        return model.part2.weight.detach()

    assert all(torch.equal(found, wanted) for found in together(count, start))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("name", ["tf-v2", "safetensors", "npz-compressed", "hdf5"])
def test_a_forked_process_reads_on_or_says_why_not(
    folders: dict[str, tuple[Path, str]], put: Callable[[Path], str], name: str
) -> None:
    folder, file = folders[name]
    base = put(folder)
    checkpoint = tw.load_checkpoint(f"{base}/{file}")
    alone = {key: raw(checkpoint.get_tensor(key)) for key in sorted(checkpoint)[:2]}
    new = sorted(checkpoint)[-1]
    wanted = raw(tw.load_checkpoint(folder / file).get_tensor(new))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            same = {key: raw(checkpoint.get_tensor(key)) for key in alone} == alone
            try:
                fetched = raw(checkpoint.get_tensor(new)) == wanted
            except tw.StorageError as error:
                fetched = base.startswith("http") and "forked" in str(error)
            code = 0 if same and fetched else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert raw(checkpoint.get_tensor(new)) == wanted
