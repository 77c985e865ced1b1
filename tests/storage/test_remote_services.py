"""Checkpoints behind URLs of real services, and of broken ones: what a failed request does."""

from __future__ import annotations

import functools
import http.server
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from fsspec.registry import _registry
from remote_helpers import TABLE, Model, described, fails_with, settings_for, upload
from safetensors.torch import save_file

import torch_warmstart as tw
from torch_warmstart.storage.storage import Storage

# ---- What goes wrong -------------------------------------------------------------------------


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


def test_a_file_that_is_replaced_meanwhile_is_told(remote):
    checkpoint = tw.load_checkpoint(remote)
    checkpoint.get_tensor("small/0")
    filesystem = fsspec.filesystem("memory")
    path = f"{remote}/model.ckpt-3.data-00000-of-00002"
    filesystem.pipe(path, bytes(filesystem.size(path)))
    with pytest.raises(tw.CorruptCheckpointError, match="has been replaced since it was opened"):
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


def test_over_http_without_ranges_files_are_fetched_whole(web, monkeypatch):
    monkeypatch.setattr(_Ranges, "serves_ranges", False)
    checkpoint = tw.load_checkpoint(f"{web}/model.ckpt-3")
    rows = torch.tensor([7, 9_000])
    assert torch.equal(checkpoint.get_tensor("table", rows), torch.from_numpy(TABLE)[rows])
    assert torch.equal(checkpoint.get_tensor("table"), torch.from_numpy(TABLE))


def test_over_http_what_is_not_there_is_told(web):
    with pytest.raises(tw.CheckpointNotFoundError, match="There is no checkpoint at http://127"):
        tw.load_checkpoint(f"{web}/model.ckpt-4")


# ---- Google Cloud Storage --------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(local: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A bucket of an emulated Cloud Storage, and the options that lead there."""
    with pytest.MonkeyPatch.context() as patch:
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
