"""Web servers that answer with a whole file, whatever part is asked for: Python's own."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator

import pytest
import torch
from recording_server import Server, serving
from safetensors.torch import save

import torch_warmstart as tw
from torch_warmstart.storage import Storage

DATA = bytes(range(256)) * 40
TENSORS = {"a": torch.arange(2_000.0), "b": torch.ones(3)}


@pytest.fixture
def web() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    with serving() as server:
        server.serves_ranges = False
        server.files["/f"], server.files["/m.safetensors"] = DATA, save(TENSORS)
        yield server


def _wholes(web: Server) -> int:
    """How many files were asked for as a whole."""
    return sum("Range" not in headers for _, headers in web.requests)


def test_what_is_read_is_what_is_there_and_fetched_once(web: Server) -> None:
    source = Storage().open(f"{web.url}/f")
    before = _wholes(web)
    assert source.read(10, 20).tobytes() == DATA[10:30]
    after = len(web.requests)
    assert source.read(0, len(DATA)).tobytes() == DATA
    assert source.read(9_000, 7).tobytes() == DATA[9_000:9_007]
    assert len(web.requests) == after
    assert _wholes(web) > before


def test_a_model_is_warm_started_from_there(web: Server) -> None:
    model = torch.nn.ParameterDict({name: torch.zeros_like(t) for name, t in TENSORS.items()})
    tw.warm_start(model, f"{web.url}/m.safetensors")
    assert all(torch.equal(model[name], value) for name, value in TENSORS.items())


def test_threads_share_one_answer(web: Server) -> None:
    source = Storage().open(f"{web.url}/f")
    found: dict[int, bytes] = {}

    def read(at: int) -> None:
        found[at] = source.read(at, 100).tobytes()

    threads = [threading.Thread(target=read, args=(at,)) for at in range(0, 8_000, 1_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {at: DATA[at : at + 100] for at in range(0, 8_000, 1_000)}


def test_what_has_been_looked_at_is_not_written_again(web: Server) -> None:
    web.serves_ranges = True
    source = Storage().open(f"{web.url}/f")
    there = source.read(0, 100)
    web.serves_ranges, web.files["/f"] = False, bytes(len(DATA))
    with pytest.raises(tw.CorruptCheckpointError, match="has been replaced since it was opened"):
        source.read(200, 10)
    assert there.tobytes() == DATA[:100]
    web.files["/f"] = DATA
    assert source.read(200, 10).tobytes() == DATA[200:210]


@pytest.mark.parametrize("start", [1, 10, 9_000])
def test_a_packed_answer_as_long_as_the_range_is_not_taken_for_it(web: Server, start: int) -> None:
    source = Storage().open(f"{web.url}/f")
    web.files["/f"], web.lies["Content-Encoding"] = gzip.compress(DATA[:20]), "gzip"
    with pytest.raises(tw.CorruptCheckpointError, match="has 10,240 bytes, and answers with 20"):
        source.read(start, 20)


def test_a_file_that_ends_early_is_refused(web: Server) -> None:
    source = Storage().open(f"{web.url}/f")
    web.files["/f"] = DATA[:5_000]
    with pytest.raises(tw.CorruptCheckpointError, match="has 10,240 bytes, and answers with 5,000"):
        source.read(10, 20)


def test_what_was_not_fetched_takes_no_room(web: Server) -> None:
    options = {"mirror_limit": len(DATA)}
    source = Storage(**options).open(f"{web.url}/f")
    web.status = 503
    for _ in range(3):
        with pytest.raises(tw.StorageError, match="503"):
            source.read(10, 8_000)
    web.status = 200
    assert source.read(10, 8_000).tobytes() == DATA[10:8_010]


def test_a_file_larger_than_the_room_there_is_is_refused(web: Server) -> None:
    source = Storage(mirror_limit=len(DATA) - 1).open(f"{web.url}/f")
    with pytest.raises(tw.StorageError, match="mirror_limit"):
        source.read(10, 20)
