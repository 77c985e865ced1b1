"""Checkpoints behind URLs: what is fetched, how often, and what happens when that fails."""

from __future__ import annotations

import errno
import functools
import http.server
import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from bundle_writer import FULL, BundleEntry, DType, write_bundle
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from safetensors.torch import save_file

import torch_warmstart as tw
from torch_warmstart.formats import registry
from torch_warmstart.storage import Storage, files

ROWS, COLUMNS = 10_000, 16
TABLE = np.arange(ROWS * COLUMNS, dtype="<f4").reshape(ROWS, COLUMNS)
ROW_BYTES = COLUMNS * 4


def floats(key: str, array: np.ndarray, **options: object) -> BundleEntry:
    return BundleEntry(key, DType.FLOAT, array.shape, array.astype("<f4").tobytes(), **options)


def write_checkpoint(folder: Path) -> None:
    """Two data files, one large tensor, one in three slices, many small ones; a state file."""
    small = [floats(f"small/{n}", np.full((4,), n)) for n in range(20)]
    cut = [(0, 5), (5, 3), (8, 2)]
    sliced = BundleEntry(
        "sliced",
        DType.FLOAT,
        (10, 4),
        slices=[
            ([extent, FULL], TABLE[extent[0] : sum(extent), :4].astype("<f4").tobytes())
            for extent in cut
        ],
    )
    entries = [floats("table", TABLE), *small, sliced, floats("other", TABLE[:50] + 1, shard=1)]
    write_bundle(folder / "model.ckpt-3", entries, num_shards=2)
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-3"\n')
    (folder / "old.txt").write_text("a\nb\nc\n")
    (folder / "new.txt").write_text("c\nd\na\n")


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "model"
    write_checkpoint(folder)
    return folder


def upload(folder: Path, url: str, **options: object) -> str:
    filesystem, path = fsspec.core.url_to_fs(url, **options)
    for file in folder.iterdir():
        filesystem.pipe(f"{path}/{file.name}", file.read_bytes())
    return url


@pytest.fixture
def remote(local: Path) -> Iterator[str]:
    """The checkpoint's directory in fsspec's memory."""
    url = upload(local, f"memory://{uuid.uuid4().hex}")
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)


class Fetches(list[tuple[str, int, int]]):
    """Every range that was asked for: file name, start, stop; and how they were grouped."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []  # bytes of each call

    def of(self, name: str) -> list[tuple[int, int]]:
        return [(start, stop) for file, start, stop in self if name in file]

    def sizes(self, name: str = ".data-") -> list[int]:
        return [stop - start for start, stop in self.of(name)]


@pytest.fixture
def fetches(monkeypatch: pytest.MonkeyPatch) -> Fetches:
    seen = Fetches()
    fetch = MemoryFileSystem.cat_ranges

    def counting(self, paths, starts, ends, **options):
        seen.extend((p.rsplit("/", 1)[-1], *r) for p, *r in zip(paths, starts, ends, strict=True))
        seen.calls.append(sum(ends) - sum(starts))
        return fetch(self, paths, starts, ends, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", counting)
    return seen


def assert_nothing_is_fetched_twice(fetches: Fetches) -> None:
    for name in {name for name, _, _ in fetches}:
        ranges = sorted(fetches.of(name))
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(ranges)), (name, ranges)


# ---- What is fetched -------------------------------------------------------------------------


def test_opening_fetches_the_state_file_and_the_index_once(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    assert len(list(checkpoint)) == 23
    assert [checkpoint.location(key).num_slices for key in ("table", "sliced")] == [0, 3]

    assert len(fetches.of(".index")) == 1
    assert len(fetches.of("checkpoint")) == 1
    assert fetches.of(".data-") == []
    assert_nothing_is_fetched_twice(fetches)


def test_a_tensor_costs_its_own_bytes(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    for _ in range(2):
        assert torch.equal(checkpoint.get_tensor("other"), torch.from_numpy(TABLE[:50] + 1))

    assert fetches.sizes() == [50 * ROW_BYTES]
    assert fetches.of("00001-of-00002") == [(0, 50 * ROW_BYTES)]


def test_rows_cost_their_own_bytes(remote, fetches):
    rows = torch.tensor([9_999, 3, 4, 3])
    checkpoint = tw.load_checkpoint(remote)
    for _ in range(2):
        assert torch.equal(checkpoint.get_tensor("table", rows), torch.from_numpy(TABLE)[rows])

    assert sorted(fetches.of(".data-")) == [
        (3 * ROW_BYTES, 5 * ROW_BYTES),
        (9_999 * ROW_BYTES, 10_000 * ROW_BYTES),
    ]
    assert len(fetches.calls) == 3  # state file, index, both ranges together


def test_rows_and_then_the_whole_fetch_each_byte_once(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    checkpoint.get_tensor("table", torch.tensor([5, 5_000]))
    assert torch.equal(checkpoint.get_tensor("table"), torch.from_numpy(TABLE))

    assert sum(fetches.sizes()) == TABLE.nbytes
    assert_nothing_is_fetched_twice(fetches)


def test_rows_of_a_sliced_tensor_fetch_their_slices_only(remote, fetches):
    checkpoint = registry.open_checkpoint(remote, storage=Storage(max_gap=0))
    rows = torch.tensor([9, 1])
    expected = torch.from_numpy(TABLE[:10, :4])

    assert torch.equal(checkpoint.get_tensor("sliced", rows), expected[rows])
    assert fetches.sizes() == [16, 16]
    assert torch.equal(checkpoint.get_tensor("sliced"), expected)
    assert sum(fetches.sizes()) == 10 * 16
    assert_nothing_is_fetched_twice(fetches)


def test_small_tensors_are_fetched_together(remote, fetches):
    checkpoint = tw.load_checkpoint(remote)
    keys = [f"small/{n}" for n in range(20)]
    checkpoint.prefetch(keys)
    fetched = len(fetches)
    values = [float(checkpoint.get_tensor(key)[0]) for key in keys]

    assert values == list(range(20))
    assert fetches.sizes() == [20 * 16]
    assert len(fetches) == fetched


@pytest.mark.parametrize(("max_gap", "sizes"), [(0, [16, 16]), (15, [16, 16]), (16, [48])])
def test_max_gap_says_what_is_rather_fetched_for_nothing(remote, fetches, max_gap, sizes):
    checkpoint = registry.open_checkpoint(remote, storage=Storage(max_gap=max_gap))
    checkpoint.prefetch(["small/0", "small/2"])

    assert fetches.sizes() == sizes


def test_a_gap_is_not_bridged_over_what_is_there_already(remote, fetches):
    """The owner of a tensor may have written to it: it must not be fetched over."""
    checkpoint = tw.load_checkpoint(remote, verify=False)
    mine = checkpoint.get_tensor("small/1")
    mine[:] = -1
    checkpoint.prefetch(["small/0", "small/2"])

    assert mine.tolist() == [-1] * 4
    assert_nothing_is_fetched_twice(fetches)


def test_what_is_in_flight_is_bounded(remote, fetches, monkeypatch):
    monkeypatch.setattr(files, "_PIECE", 10_000)
    monkeypatch.setattr(files, "_MAX_BYTES_IN_FLIGHT", 100_000)
    checkpoint = tw.load_checkpoint(remote)
    assert torch.equal(checkpoint.get_tensor("table"), torch.from_numpy(TABLE))

    assert max(fetches.sizes()) == 10_000
    assert max(fetches.calls) == 100_000
    assert sum(fetches.sizes()) == TABLE.nbytes
    assert len(fetches.calls) == 2 + -(-TABLE.nbytes // 100_000)


# ---- A warm start ----------------------------------------------------------------------------


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.other = torch.nn.Parameter(torch.zeros(50, COLUMNS))
        self.words = torch.nn.Parameter(torch.full((4, COLUMNS), 7.0))


def settings_for(folder: str, **options: object) -> tw.WarmStartSettings:
    vocabulary = tw.VocabInfo(f"{folder}/new.txt", 3, 1, f"{folder}/old.txt")
    return tw.WarmStartSettings(
        folder,
        var_name_to_vocab_info={"words": vocabulary},
        var_name_to_prev_var_name={"words": "table"},
        **options,
    )


def described(report: tw.WarmStartReport, folder: str) -> str:
    text = str({**report.to_dict(), "seconds": 0})
    return text.replace(folder, "FOLDER")


def test_a_warm_start_from_a_url_is_the_same_as_from_a_path(local, remote, fetches):
    here, there = Model(), Model()
    expected = tw.warm_start(here, settings_for(str(local)))
    report = tw.warm_start(there, settings_for(remote))

    assert described(report, remote) == described(expected, str(local))
    assert torch.equal(there.words[:, 0], torch.tensor([32.0, 0.0, 0.0, 0.0]))
    for name, parameter in here.named_parameters():
        assert torch.equal(parameter, there.get_parameter(name)), name
    assert_nothing_is_fetched_twice(fetches)
    assert len(fetches.of("new.txt")) == 1


def test_a_plan_fetches_no_tensor(remote, fetches):
    tw.plan_warm_start(Model(), settings_for(remote))
    assert fetches.of(".data-") == []


# ---- Rows through a remapping ----------------------------------------------------------------

OLD = [f"token {n}" for n in range(ROWS)]
NEEDED = [9_000, 3, 4, 2_000, 2_001, 2_002]
NEW = ["new 1", *(OLD[row] for row in NEEDED), "new 2"]


def remapped(url, target, key, *, old=OLD, new=NEW, axis=0, **options):
    """A table of `target`'s shape, of ones at first, that was warm-started from a key."""
    model = torch.nn.Module()
    model.table = torch.nn.Parameter(torch.ones(target), requires_grad=False)
    vocabulary = tw.VocabInfo(new, len(new), 0, old, len(old), axis=axis)
    options.setdefault("max_gap", 0)
    settings = tw.WarmStartSettings(
        url,
        vars_to_warm_start=["table"],
        var_name_to_vocab_info={"table": vocabulary},
        var_name_to_prev_var_name={"table": key},
        **options,
    )
    tw.warm_start(model, settings)
    return model.table


def row_range(first: int, behind: int) -> tuple[int, int]:
    return first * ROW_BYTES, behind * ROW_BYTES


def test_only_the_rows_a_remapping_needs_are_fetched(remote, local, fetches):
    table = remapped(remote, (8, COLUMNS), "table", verify=False)

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    assert bool((table[[0, 7]] == 0).all())
    wanted = [row_range(3, 5), row_range(2_000, 2_003), row_range(9_000, 9_001)]
    assert sorted(fetches.of(".data-")) == wanted
    assert len(fetches.calls) == 3  # state file, index, all ranges together
    assert torch.equal(table, remapped(str(local), (8, COLUMNS), "table", verify=False))


@pytest.mark.parametrize(
    ("max_gap", "ranges"), [(0, 3), (1_994 * ROW_BYTES, 3), (1_995 * ROW_BYTES, 2), (1 << 20, 1)]
)
def test_rows_a_small_gap_apart_are_one_range(remote, fetches, max_gap, ranges):
    table = remapped(remote, (8, COLUMNS), "table", verify=False, max_gap=max_gap)

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    assert len(fetches.of(".data-")) == ranges


def test_a_checksum_needs_the_whole_table(remote, fetches):
    table = remapped(remote, (8, COLUMNS), "table")

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    assert fetches.sizes() == [TABLE.nbytes]


def test_nothing_is_fetched_for_rows_that_are_all_new(remote, fetches):
    new = [f"new {n}" for n in range(5)]
    table = remapped(remote, (5, COLUMNS), "table", new=new, verify=False)

    assert bool((table == 0).all())
    assert fetches.of(".data-") == []


@pytest.mark.parametrize("new", [[0, 7, 5, 5_000], [9, 8, 2, 1, 0], [5_000, 5_001]])
@pytest.mark.parametrize("verify", [True, False])
def test_rows_are_gathered_from_slices(remote, local, fetches, new, verify):
    """The table is cut into rows 0 to 4, 5 to 7 and 8 to 9."""
    old, rows = OLD[:10], [row for row in new if row < 10]
    options = {"old": old, "new": [OLD[row] for row in new], "verify": verify}
    table = remapped(remote, (len(new), 4), "sliced", **options)

    expected = torch.zeros(len(new), 4)
    expected[: len(rows)] = torch.from_numpy(TABLE[:10, :4])[rows]
    assert torch.equal(table, expected)
    assert torch.equal(table, remapped(str(local), (len(new), 4), "sliced", **options))
    assert sum(fetches.sizes()) == (160 if verify else len(rows) * 16)
    assert_nothing_is_fetched_twice(fetches)


def test_columns_of_the_file_need_all_of_it(remote, fetches):
    new = [OLD[2], "new", OLD[0]]
    table = remapped(remote, (50, 3), "other", old=OLD[:COLUMNS], new=new, axis=1, verify=False)

    assert torch.equal(table[:, [0, 2]], torch.from_numpy(TABLE[:50, [2, 0]] + 1))
    assert fetches.sizes() == [50 * ROW_BYTES]


@pytest.mark.parametrize(("key", "sizes"), [("other", [64, 64]), ("sliced", [16, 16])])
def test_rows_of_the_file_that_a_layout_makes_columns_are_rows(remote, local, fetches, key, sizes):
    """As the inputs of a Dense kernel are: [in, out] in TensorFlow, [out, in] in torch."""
    rows, columns = (50, COLUMNS) if key == "other" else (10, 4)
    options = {
        "old": OLD[:rows],
        "new": [OLD[9], "new", OLD[1]],
        "axis": 1,
        "verify": False,
        "var_name_to_layout": {"table": "transpose"},
    }
    table = remapped(remote, (columns, 3), key, **options)

    assert fetches.sizes() == sizes
    whole = tw.load_checkpoint(str(local)).get_tensor(key)
    assert torch.equal(table[:, [0, 2]], whole[[9, 1]].T)
    assert bool((table[:, 1] == 0).all())


def test_a_dtype_is_changed_from_slices_too(remote, local):
    model = torch.nn.Module()
    model.table = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.bfloat16))
    settings = tw.WarmStartSettings(
        remote,
        var_name_to_vocab_info={"table": tw.VocabInfo(["8", "x", "1"], 3, 0, list("0123456789"))},
        var_name_to_prev_var_name={"table": "sliced"},
    )
    tw.warm_start(model, settings)
    whole = tw.load_checkpoint(str(local)).get_tensor("sliced").to(torch.bfloat16)
    assert torch.equal(model.table[[0, 2]], whole[[8, 1]])


def test_nothing_changes_when_the_rows_cannot_be_fetched(remote, monkeypatch):
    fails_with(monkeypatch, lambda data: TimeoutError("too slow"))
    model = Model()
    with pytest.raises(tw.StorageError):
        tw.warm_start(model, settings_for(remote, verify=False))
    assert bool((model.other == 0).all() and (model.words == 7).all())


def test_requests_are_made_a_bounded_number_at_a_time(remote, fetches, monkeypatch):
    monkeypatch.setattr(files, "_MAX_REQUESTS", 2)
    new = [OLD[row] for row in range(0, 50, 10)]
    table = remapped(remote, (5, COLUMNS), "table", new=new, verify=False)

    assert torch.equal(table, torch.from_numpy(TABLE[0:50:10]))
    assert fetches.calls[-3:] == [2 * ROW_BYTES, 2 * ROW_BYTES, ROW_BYTES]


def save_npy(file: Path, array: np.ndarray) -> str:
    np.save(file.with_suffix(".npy"), array)
    return file.stem


def save_npz(file: Path, array: np.ndarray) -> str:
    np.savez(file.with_suffix(".npz"), table=array)
    return "table"


def save_safetensors(file: Path, array: np.ndarray) -> str:
    save_file({"a": torch.zeros(1), "table": torch.from_numpy(array)}, f"{file}.safetensors")
    return "table"


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("save", [save_npy, save_npz, save_safetensors])
def test_of_other_formats_rows_are_fetched_too(save, verify, tmp_path, fetches):
    """Without a checksum in the file, verifying asks for nothing more."""
    key = save(tmp_path / "t", TABLE)
    url = upload(tmp_path, f"memory://{uuid.uuid4().hex}")
    (name,) = (file.name for file in tmp_path.iterdir())
    table = remapped(f"{url}/{name}", (8, COLUMNS), key, verify=verify)
    fsspec.filesystem("memory").rm(url, recursive=True)

    assert torch.equal(table[1:7], torch.from_numpy(TABLE)[NEEDED])
    fetched = sum(fetches.sizes(name))
    assert fetched > TABLE.nbytes if verify and save is save_npz else fetched < TABLE.nbytes // 4


def test_a_full_disk_is_told(remote, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(tw.StorageError, match=r"No space left on device\. Set TMPDIR to a direc"):
        tw.load_checkpoint(remote)


# ---- What goes wrong -------------------------------------------------------------------------


def fails_with(monkeypatch, answer):
    """Every range of a data file is answered by `answer(bytes)`."""
    fetch = MemoryFileSystem.cat_ranges

    def failing(self, paths, starts, ends, **options):
        data = fetch(self, paths, starts, ends, **options)
        return [answer(d) if ".data-" in p else d for p, d in zip(paths, data, strict=True)]

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", failing)


def test_fewer_bytes_than_asked_for_are_told(remote, monkeypatch):
    fails_with(monkeypatch, lambda data: data[:-1])
    message = r"00001-of-00002: asked for 3,200 bytes at offset 0, got 3,199\. Has the file been"
    with pytest.raises(tw.CorruptCheckpointError, match=message):
        tw.load_checkpoint(remote).get_tensor("other")


def test_an_error_of_the_filesystem_names_the_file(remote, monkeypatch):
    fails_with(monkeypatch, lambda data: ConnectionResetError("by peer"))
    url = re.escape(f"{remote}/model.ckpt-3.data-00001-of-00002")
    message = rf"^{url} cannot be read: ConnectionResetError: by peer$"
    with pytest.raises(tw.StorageError, match=message) as caught:
        tw.load_checkpoint(remote).get_tensor("other")
    assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_after_an_error_it_can_be_tried_again(remote, monkeypatch):
    checkpoint = tw.load_checkpoint(remote)
    with monkeypatch.context() as broken:
        fails_with(broken, lambda data: TimeoutError("too slow"))
        with pytest.raises(tw.StorageError):
            checkpoint.get_tensor("other")

    assert torch.equal(checkpoint.get_tensor("other"), torch.from_numpy(TABLE[:50] + 1))


def test_nothing_changes_when_a_warm_start_breaks_off(remote, monkeypatch):
    fails_with(monkeypatch, lambda data: TimeoutError("too slow"))
    model = Model()
    with pytest.raises(tw.StorageError):
        tw.warm_start(model, settings_for(remote))
    assert bool((model.other == 0).all() and (model.words == 7).all())


def test_a_file_that_shrinks_meanwhile_is_told(remote):
    checkpoint = tw.load_checkpoint(remote)
    checkpoint.get_tensor("small/0")
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe(f"{remote}/model.ckpt-3.data-00000-of-00002", bytes(1000))
    with pytest.raises(tw.CorruptCheckpointError, match="Has the file been replaced meanwhile"):
        checkpoint.get_tensor("table")


def test_a_file_that_is_replaced_meanwhile_fails_its_checksums(remote):
    checkpoint = tw.load_checkpoint(remote)
    checkpoint.get_tensor("small/0")
    filesystem = fsspec.filesystem("memory")
    path = f"{remote}/model.ckpt-3.data-00000-of-00002"
    filesystem.pipe(path, bytes(filesystem.size(path)))
    with pytest.raises(tw.CorruptCheckpointError, match="'table' is damaged: its checksum"):
        checkpoint.get_tensor("table")


def test_a_file_that_goes_meanwhile_is_told(remote):
    checkpoint = tw.load_checkpoint(remote)
    fsspec.filesystem("memory").rm(f"{remote}/model.ckpt-3.data-00001-of-00002")
    with pytest.raises(tw.CorruptCheckpointError, match="00001-of-00002, which does not exist"):
        checkpoint.get_tensor("other")


def test_a_damaged_slice_is_a_damaged_checkpoint_when_prefetched_too(tmp_path):
    parts = [([(0, 2)], bytes(8))]
    entry = BundleEntry("s", DType.FLOAT, (4,), slices=[*parts, ([(2, 2)], bytes(4))])
    write_bundle(tmp_path / "ckpt", [entry])
    checkpoint = tw.load_checkpoint(str(tmp_path / "ckpt"))
    for ask in (checkpoint.get_tensor, checkpoint.location, lambda key: checkpoint.prefetch([key])):
        with pytest.raises(tw.CorruptCheckpointError, match="tensor 's' is damaged"):
            ask("s")


@pytest.mark.parametrize(
    ("scheme", "package", "extra"),
    [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs"), ("hf", "huggingface_hub", "hf")],
)
def test_a_missing_package_names_the_extra(scheme, package, extra, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, scheme, raising=False)
    with pytest.raises(tw.MissingDependencyError, match=rf"torch-warmstart\[{extra}\]"):
        tw.load_checkpoint(f"{scheme}://bucket/model", filesystem="fsspec")


# ---- HTTP ------------------------------------------------------------------------------------


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files in ranges and lists no directories."""

    serves_ranges = True
    asked: list[str]

    def list_directory(self, path):
        self.send_error(403)

    def log_message(self, format, *arguments):
        pass

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not self.serves_ranges or not path.is_file():
            super().do_GET()
            return
        self.asked.append(f"{path.name} {wanted[1]}-{wanted[2]}")
        whole = path.read_bytes()
        data = whole[int(wanted[1]) : int(wanted[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Range", f"bytes {wanted[1]}-{wanted[2]}/{len(whole)}")
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def web(local: Path, monkeypatch) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(_Ranges, "asked", [], raising=False)
    handler = functools.partial(_Ranges, directory=str(local))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["model.ckpt-3.index", "model.ckpt-3", "checkpoint"])
def test_over_http_a_file_or_prefix_is_enough(web, name):
    checkpoint = tw.load_checkpoint(f"{web}/{name}")
    rows = torch.tensor([7, 9_000])
    assert torch.equal(checkpoint.get_tensor("table", rows), torch.from_numpy(TABLE)[rows])
    data = "model.ckpt-3.data-00000-of-00002"
    assert {entry for entry in _Ranges.asked if ".data-" in entry} == {
        f"{data} {7 * 64}-{8 * 64 - 1}",
        f"{data} {9_000 * 64}-{9_001 * 64 - 1}",
    }


def test_over_http_a_safetensors_file_needs_no_listing(web, local):
    tensors = {"a": torch.from_numpy(TABLE.copy()), "b": torch.ones(3)}
    save_file(tensors, local / "model.safetensors")
    try:
        checkpoint = tw.load_checkpoint(f"{web}/model.safetensors?signature=x")
        assert torch.equal(checkpoint.get_tensor("b"), tensors["b"])
        wanted = (entry.split()[1].split("-") for entry in _Ranges.asked)
        assert sum(int(last) + 1 - int(first) for first, last in wanted) < 2_000
    finally:
        (local / "model.safetensors").unlink()


def test_over_http_without_ranges_the_reason_is_told(web, monkeypatch):
    monkeypatch.setattr(_Ranges, "serves_ranges", False)
    checkpoint = tw.load_checkpoint(f"{web}/model.ckpt-3")  # its index is asked for as a whole
    with pytest.raises(tw.CorruptCheckpointError, match="its server does not serve ranges"):
        checkpoint.get_tensor("small/0")


def test_over_http_what_is_not_there_is_told(web):
    with pytest.raises(tw.CheckpointNotFoundError, match="There is no checkpoint at http://127"):
        tw.load_checkpoint(f"{web}/model.ckpt-4")


# ---- Google Cloud Storage --------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(local: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket of an emulated Cloud Storage, and the options that lead there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks Google about buckets
        pytest.importorskip("gcsfs")
        emulator = pytest.importorskip("gcp_storage_emulator.server")
        port = _free_port()
        server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        options = {"token": "anon", "endpoint_url": f"http://127.0.0.1:{port}"}
        server.start()
        try:
            upload(local, "gs://bucket/models/a", **options)
            yield "gs://bucket/models/a", options
        finally:
            server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_from_cloud_storage_tensors_and_rows_are_read(bucket):
    url, options = bucket
    rows = torch.tensor([2, 9_876])
    for named in (url, f"{url}/model.ckpt-3", f"{url}/model.ckpt-3.index"):
        checkpoint = tw.load_checkpoint(named, storage_options=options)
        assert len(checkpoint) == 23
        assert torch.equal(checkpoint.get_tensor("table", rows), torch.from_numpy(TABLE)[rows])
    assert torch.equal(checkpoint.get_tensor("other"), torch.from_numpy(TABLE[:50] + 1))
    assert tw.latest_checkpoint(url, storage_options=options) == f"{url}/model.ckpt-3"


def test_a_warm_start_from_cloud_storage_takes_the_options_everywhere(bucket, local):
    url, options = bucket
    here, there = Model(), Model()
    expected = tw.warm_start(here, settings_for(str(local)))
    report = tw.warm_start(there, settings_for(url, storage_options=options))

    assert described(report, url) == described(expected, str(local))
    assert torch.equal(here.words, there.words)
    assert torch.equal(here.other, there.other)


def test_in_cloud_storage_what_is_not_there_is_told(bucket):
    url, options = bucket
    with pytest.raises(
        tw.CheckpointNotFoundError, match=r"Checkpoints there: 'gs://.*model.ckpt-3'"
    ):
        tw.load_checkpoint(f"{url}/model.ckpt-4", storage_options=options)


# ---- TensorFlow's filesystems ----------------------------------------------------------------


@pytest.fixture(params=["path", "ram"])
def gfile_folder(request, local: Path) -> str:
    """The checkpoint where only TensorFlow looks: a local path, and its memory."""
    tf = pytest.importorskip("tensorflow")
    if request.param == "path":
        return str(local)
    # A folder of this test's own: files in TensorFlow's memory outlive it, and "wb" appends there.
    folder = f"ram://{uuid.uuid4().hex}"
    for file in local.iterdir():
        with tf.io.gfile.GFile(f"{folder}/{file.name}", "wb") as copy:
            copy.write(file.read_bytes())
    return folder


@pytest.mark.tensorflow
def test_through_gfile_everything_is_the_same(gfile_folder, local):
    checkpoint = tw.load_checkpoint(gfile_folder, filesystem="gfile")
    rows = torch.tensor([3, 9_999, 3])

    assert torch.equal(checkpoint.get_tensor("table", rows), torch.from_numpy(TABLE)[rows])
    assert torch.equal(checkpoint.get_tensor("sliced"), torch.from_numpy(TABLE[:10, :4]))
    here, there = Model(), Model()
    expected = tw.warm_start(here, settings_for(str(local)))
    report = tw.warm_start(there, settings_for(gfile_folder, filesystem="gfile"))
    assert described(report, gfile_folder) == described(expected, str(local))
    assert torch.equal(here.words, there.words)


@pytest.mark.tensorflow
def test_through_gfile_what_is_not_there_is_told(gfile_folder):
    with pytest.raises(tw.CheckpointNotFoundError, match="There is no checkpoint at"):
        tw.load_checkpoint(f"{gfile_folder}/nothing", filesystem="gfile")
    with pytest.raises(FileNotFoundError, match="no such file: "):
        Storage(filesystem="gfile").open(f"{gfile_folder}/nothing")


@pytest.mark.tensorflow
def test_an_optimizer_can_be_made_behind_gfile(tmp_path):
    """torch imports Triton then, which a TensorFlow that was there first makes crash."""
    pytest.importorskip("tensorflow")
    code = """
import torch
from torch_warmstart.storage.gfile import GfileFilesystem
GfileFilesystem()
torch.optim.Adam([torch.zeros(1)])
import importlib.util
if importlib.util.find_spec("triton"):
    import triton
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
