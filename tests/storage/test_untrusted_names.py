"""Names that files hold lead nowhere but below the place that the user named."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bundle_writer import write_bundle
from formats_helpers import float_entry
from recording_server import Server, serving
from remote_files import upload
from safetensors.torch import save, save_file

import torch_warmstart as tw
from torch_warmstart.storage import Storage, below

SECRET = "Bearer only-for-the-users-host"
WITH_SECRET = {"headers": {"Authorization": SECRET}}
ONE = save({"x": torch.ones(2)})

OUTSIDE = [
    "/etc/passwd",
    "../x",
    "sub/../../x",
    "..",
    "%2e%2e/x",
    "%252e%252e/x",
    "sub/%2E%2E/%2e./x",
    "..%2fx",
    "..\\x",
    "\\\\host\\x",
    "//host/x",
    "C:/x",
    "c:\\x",
    "file:///etc/passwd",
    "http://host/x",
    "HTTP:%2f%2fhost/x",
    "reference://x::http://host/ref.json",
    "simplecache::http://host/x",
    "filecache::/etc/passwd",
    "a::b",
    "a\nb",
    "a\x1b[31mb",
    "a%0ab",
    "a\0b",
    "a\x85b",
    "a//b",
    "a/",
    "",
]


@pytest.mark.parametrize("directory", ["dir", "/dir", "gs://b/dir", "http://host/dir"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused(directory: str, name: str) -> None:
    with pytest.raises(tw.CorruptCheckpointError, match="which is not in its directory") as caught:
        below(directory, name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("directory", "name", "path"),
    [
        ("dir", "a", "dir/a"),
        ("dir", "./sub/a b", "dir/./sub/a b"),
        ("dir", "100%", "dir/100%"),
        ("dir", "..a", "dir/..a"),
        ("gs://b/dir/", "a#1", "gs://b/dir/a#1"),
        ("http://host/dir", "a b#1?c=%41", "http://host/dir/a%20b%231%3Fc%3D%2541"),
    ],
)
def test_other_names_are_joined_as_text(directory: str, name: str, path: str) -> None:
    assert below(directory, name) == path


# ---- Over HTTP, with every request noted -----------------------------------------------------


@pytest.fixture
def here() -> Iterator[Server]:
    """The host that the user names."""
    pytest.importorskip("aiohttp")
    with serving() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    """Another one, which has everything that is asked for."""
    with serving() as server:
        yield server


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is handed to fsspec's parser of URLs."""
    import fsspec.core

    seen: list[str] = []
    parse = fsspec.core.url_to_fs

    def noting(url: str, **options: object) -> object:
        seen.append(url)
        return parse(url, **options)

    monkeypatch.setattr(fsspec.core, "url_to_fs", noting)
    return seen


HOSTILE = [
    "reference://x::{elsewhere}/ref.json",
    "simplecache::{elsewhere}/x",
    "filecache::file:///etc/passwd",
    "{elsewhere}/x",
    "//localhost:{port}/x",
    "\\\\\\\\localhost\\\\x",
    "file:///etc/passwd",
    "/etc/passwd",
    "../../secret/x",
    "..\\\\x",
    "%2e%2e/%2e%2e/secret/x",
    "\\056\\056\\057secret\\057x",  # `../secret/x` in the text format's escapes
    "a\\nb",
    "\\033[31mred",
    "C:\\\\x",
]


@pytest.mark.parametrize("named", HOSTILE)
@pytest.mark.parametrize("asked", ["/m", "/m/checkpoint"])
def test_a_state_file_sends_nobody_elsewhere(
    here: Server, elsewhere: Server, parsed: list[str], named: str, asked: str
) -> None:
    named = named.format(elsewhere=elsewhere.url, port=elsewhere.port)
    here.files["/m/checkpoint"] = f'model_checkpoint_path: "{named}"\n'.encode()

    with pytest.raises(tw.WarmStartError) as caught:
        tw.load_checkpoint(here.url + asked, storage_options=WITH_SECRET)

    assert "/m/checkpoint" in here.paths
    assert not elsewhere.requests
    named_by_the_user = {"/m", "/m.index"}  # a directory, or a prefix
    assert all(path.startswith("/m/") for path in here.paths - named_by_the_user), here.paths
    assert not any(".." in path or "%2e" in path.lower() for path in here.paths)
    assert set(parsed) == {here.url + asked}
    assert "\x1b" not in str(caught.value)


def test_of_an_index_behind_a_signed_address_it_is_said_that_it_is_good_for_one(
    here: Server,
) -> None:
    index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    name = "/m/model.safetensors.index.json?Signature=a/b"
    here.files[name] = json.dumps(index).encode()

    with pytest.raises(tw.UnsupportedError, match="a signed address is good for one: copy all"):
        tw.load_checkpoint(f"{here.url}{name}")["x"]

    assert here.paths == {name, "/m/model-00001-of-00001.safetensors"}


def test_an_address_that_only_says_how_to_answer_has_shards_beside_it(here: Server) -> None:
    index = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    here.files["/m/index.json?download=true/1"] = json.dumps(index).encode()
    here.files["/m/model-00001-of-00001.safetensors"] = ONE

    found = tw.load_variable(f"{here.url}/m/index.json?download=true/1", "x")

    assert torch.equal(found, torch.ones(2))


@pytest.mark.parametrize("name", [name for name in OUTSIDE if name])
def test_an_index_of_shards_sends_nobody_elsewhere(
    here: Server, parsed: list[str], name: str
) -> None:
    index = {"weight_map": {"x": name}}
    here.files["/m/model.safetensors.index.json"] = json.dumps(index).encode()
    url = f"{here.url}/m/model.safetensors.index.json"

    with pytest.raises(tw.CorruptCheckpointError) as caught:
        tw.load_checkpoint(url, storage_options=WITH_SECRET)["x"]

    assert here.paths == {"/m/model.safetensors.index.json"}
    assert set(parsed) == {url}
    assert str(caught.value).isprintable()


def test_what_a_file_names_is_read_from_the_same_place_with_the_same_options(
    here: Server, parsed: list[str]
) -> None:
    index = {"weight_map": {"x": "sub/a b.safetensors"}}
    here.files["/m/model.safetensors.index.json"] = json.dumps(index).encode()
    here.files["/m/sub/a%20b.safetensors"] = ONE
    url = f"{here.url}/m/model.safetensors.index.json"
    checkpoint = tw.load_checkpoint(url, storage_options=WITH_SECRET)

    assert checkpoint.get_tensor("x").tolist() == [1, 1]
    assert all(headers.get("Authorization") == SECRET for _, headers in here.requests)
    assert parsed == [url]


def test_beside_a_plain_file_nothing_is_looked_at(here: Server) -> None:
    here.files["/m/w.safetensors"] = ONE
    assert tw.load_checkpoint(f"{here.url}/m/w.safetensors").get_tensor("x").tolist() == [1, 1]
    assert here.paths == {"/m/w.safetensors"}


def test_beside_a_file_of_no_known_format_nothing_is_looked_at(here: Server) -> None:
    here.files["/m/w"] = b"hello"
    here.files["/m/w/checkpoint"] = b'model_checkpoint_path: "x"'
    with pytest.raises(tw.CorruptCheckpointError, match="no checkpoint of a known format"):
        tw.load_checkpoint(f"{here.url}/m/w")
    assert here.paths == {"/m/w"}


@pytest.mark.parametrize("header", ["Authorization", "Cookie", "X-Api-Key", "PRIVATE-TOKEN"])
@pytest.mark.parametrize("how", ["of each request", "of the client"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_redirect_to_another_host_carries_no_header_of_the_user(
    here: Server, elsewhere: Server, header: str, how: str, host: str
) -> None:
    here.redirects["/m/w.safetensors"] = "/m/moved"
    here.redirects["/m/moved"] = f"http://{host}:{elsewhere.port}/cdn/w"
    elsewhere.files["/cdn/w"] = ONE
    headers = {"headers": {header: "secret"}}
    options = headers if how == "of each request" else {"client_kwargs": headers}
    url = f"{here.url}/m/w.safetensors"

    assert tw.load_checkpoint(url, storage_options=options).get_tensor("x").tolist() == [1, 1]
    assert here.paths == {"/m/w.safetensors", "/m/moved"}
    assert all(headers[header] == "secret" for _, headers in here.requests)
    assert elsewhere.paths == {"/cdn/w"}
    assert not any("secret" in headers.values() for _, headers in elsewhere.requests)


@pytest.mark.parametrize("front", ["simplecache::", "zip://w.safetensors::"])
def test_nor_does_one_behind_another_filesystem(
    here: Server, elsewhere: Server, front: str
) -> None:
    here.redirects["/m/w"] = f"http://127.0.0.1:{elsewhere.port}/cdn/w"
    elsewhere.files["/cdn/w"] = _zipped(ONE) if front.startswith("zip") else ONE
    options = {"http": {"headers": {"PRIVATE-TOKEN": "secret"}}}
    loaded = tw.load_checkpoint(f"{front}{here.url}/m/w", storage_options=options)
    assert loaded.get_tensor("x").tolist() == [1, 1]
    assert all(headers["PRIVATE-TOKEN"] == "secret" for _, headers in here.requests)
    assert elsewhere.requests
    assert not any("secret" in headers.values() for _, headers in elsewhere.requests)


def _zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("w.safetensors", data)
    return buffer.getvalue()


# ---- Links -----------------------------------------------------------------------------------


def _sharded(folder: Path, shard: Path) -> Path:
    """A directory whose index names a shard that is a link."""
    folder.mkdir(parents=True)
    save_file({"x": torch.ones(2)}, shard)
    index = {"weight_map": {"x": "a.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "a.safetensors").symlink_to(os.path.relpath(shard, folder))
    return folder


def test_a_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    folder = _sharded(tmp_path / "m", tmp_path / "private.safetensors")
    with pytest.raises(tw.CorruptCheckpointError, match="a link that leads out of its directory"):
        tw.load_checkpoint(folder)["x"]


def test_nor_behind_a_url_of_this_machine(tmp_path: Path) -> None:
    folder = _sharded(tmp_path / "m", tmp_path / "private.safetensors")
    with pytest.raises(tw.CorruptCheckpointError, match="a link that leads out of its directory"):
        tw.load_checkpoint(f"file://{folder}")["x"]


def test_a_link_within_the_directory_is_followed(tmp_path: Path) -> None:
    (tmp_path / "m" / "blobs").mkdir(parents=True)
    shard = tmp_path / "m" / "blobs" / "0"
    save_file({"x": torch.ones(2)}, shard)
    index = {"weight_map": {"x": "a.safetensors"}}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "m" / "a.safetensors").symlink_to(shard)
    assert tw.load_checkpoint(tmp_path / "m").get_tensor("x").tolist() == [1, 1]


def test_hugging_faces_cache_is_read_where_all_files_are_links(tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    folder = _sharded(tmp_path / "models--a--b" / "snapshots" / "1f2e", blobs / "aa")
    index = folder / "model.safetensors.index.json"
    index.rename(blobs / "bb")
    index.symlink_to("../../blobs/bb")
    assert tw.load_checkpoint(folder).get_tensor("x").tolist() == [1, 1]


def test_a_state_file_does_not_lead_through_a_link(tmp_path: Path) -> None:
    write_bundle(tmp_path / "private" / "a", [float_entry("x", 2)])
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "sub").symlink_to(tmp_path / "private")
    (tmp_path / "m" / "checkpoint").write_text('model_checkpoint_path: "sub/a"\n')
    with pytest.raises(tw.CorruptCheckpointError, match="a link that leads out of its directory"):
        tw.load_checkpoint(tmp_path / "m")
    (tmp_path / "linked").symlink_to(tmp_path / "private" / "a.index")  # what the user names may be
    assert tw.load_checkpoint(tmp_path / "m" / "sub" / "a").get_tensor("x").tolist() == [0, 1]


# ---- Local state files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "named", ["{private}", "../private/a", "..\\\\private\\\\a", "file://{private}"]
)
def test_a_local_state_file_leads_only_below_its_directory(tmp_path: Path, named: str) -> None:
    write_bundle(tmp_path / "private" / "a", [float_entry("x", 2)])
    (tmp_path / "m").mkdir()
    named = named.format(private=tmp_path / "private" / "a")
    (tmp_path / "m" / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    with pytest.raises(tw.CheckpointNotFoundError, match="is looked into; if .* is meant, pass it"):
        tw.load_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("named", ["{m}/sub/a", "sub/a", "./sub/a", "{m}/./sub/a"])
def test_an_absolute_path_into_the_same_directory_is_followed(tmp_path: Path, named: str) -> None:
    write_bundle(tmp_path / "m" / "sub" / "a", [float_entry("x", 2)])
    named = named.format(m=tmp_path / "m")
    (tmp_path / "m" / "checkpoint").write_text(f'model_checkpoint_path: "{named}"\n')
    assert tw.load_checkpoint(tmp_path / "m").get_tensor("x").tolist() == [0, 1]


def test_a_state_file_that_windows_wrote_is_found_by_its_last_part(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", [float_entry("x", 2)])
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "C:\\\\models\\\\a"\n')
    assert tw.load_checkpoint(tmp_path).get_tensor("x").tolist() == [0, 1]


@pytest.mark.parametrize("at", ["sub/a", "a"])
def test_a_relative_path_of_windows_is_one(tmp_path: Path, at: str) -> None:
    write_bundle(tmp_path / at, [float_entry("x", 2)])
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "sub\\\\a"\n')
    assert tw.load_checkpoint(tmp_path).get_tensor("x").tolist() == [0, 1]


def test_a_state_file_that_is_far_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"#")
    os.truncate(tmp_path / "checkpoint", 1 << 40)
    with pytest.raises(tw.CorruptCheckpointError, match="too many for a file that names"):
        tw.latest_checkpoint(tmp_path)


# ---- Text of errors --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tw.WarmStartError, tw.StorageError, tw.MissingTensorError])
def test_an_error_shows_what_a_terminal_would_act_upon(kind: type[tw.WarmStartError]) -> None:
    error = kind("a\x1b[31mb\u202ec\r\nsecond line\udc80")
    assert str(error) == "a\\x1b[31mb\\u202ec\\r\nsecond line\\udc80"


def test_a_file_name_out_of_an_index_is_shown_escaped(tmp_path: Path) -> None:
    name = "a\u202eb.safetensors"
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(tw.CorruptCheckpointError, match=r"a\\u202eb\.safetensors") as caught:
        tw.load_checkpoint(tmp_path)["x"]
    assert str(caught.value).isprintable()


# ---- What else leads somewhere ---------------------------------------------------------------


def test_what_a_listing_holds_that_leads_out_is_left_out(
    here: Server,
) -> None:
    page = '<a href="..%2f..%2fsecret.safetensors.index.json">x</a> <a href="sub.json">y</a>'
    here.files["/m/"] = page.encode()
    names = Storage().list_directory(f"{here.url}/m/")
    assert names == ["sub.json"]


def test_connected_to_what_the_user_named_nothing_else_is_opened(parsed: list[str]) -> None:
    storage = Storage().connected("memory://a/b/model")
    for url in ("memory://a/c", "memory://other/x", "http://host/x", "memory://a/b/../c", "/etc/x"):
        with pytest.raises(tw.CorruptCheckpointError, match="neither beside nor below"):
            storage.open(url)
    assert not storage.exists("memory://a/b/model.index")
    assert not storage.exists("memory://a/b/model/checkpoint")
    assert parsed == ["memory://a/b/model"]


def test_connected_to_a_local_path_a_url_is_no_url(tmp_path: Path, parsed: list[str]) -> None:
    storage = Storage().connected(str(tmp_path))
    assert not storage.exists("memory://a/b")
    assert parsed == []


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "memory://x", "a::b"])
def test_metadata_of_torch_sends_nobody_elsewhere(
    tmp_path: Path, parsed: list[str], name: str
) -> None:
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import Metadata

    dcp.save({"x": torch.ones(2)}, checkpoint_id=tmp_path, no_dist=True)
    file = tmp_path / ".metadata"
    metadata: Metadata = pickle.loads(file.read_bytes())
    stored = metadata.storage_data
    for key, info in stored.items():
        stored[key] = dataclasses.replace(info, relative_path=name)
    file.write_bytes(pickle.dumps(metadata))
    url = upload(tmp_path, "memory://dcp_names")

    with pytest.raises(tw.CorruptCheckpointError, match="which is not in its directory"):
        tw.load_checkpoint(url)
    assert parsed[-1] == url


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["m", "m.index", "checkpoint", "."])
def test_through_gfile_bare_names_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("tensorflow")
    write_bundle(tmp_path / "m", [float_entry("x", 2)])
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "m"')
    monkeypatch.chdir(tmp_path)
    checkpoint = tw.load_checkpoint(name, filesystem="gfile")
    assert checkpoint.get_tensor("x").tolist() == [0, 1]
