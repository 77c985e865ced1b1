"""Vocabularies beside a remote checkpoint: read when asked for, from there alone, and bounded."""

from __future__ import annotations

import json
import os

import pytest
import torch
from remote_files import Requests, put, remote, requests, upload
from torch import nn

import torch_warmstart as tws
from torch_warmstart.storage import Storage
from torch_warmstart.vocabularies import sidecar_vocabularies

OLD, NEW = ["a", "b", "c", "d"], ["d", "x", "b"]

__all__ = ["remote", "requests"]  # fixtures


@pytest.fixture
def saved(tmp_path, remote):
    """A checkpoint with a vocabulary beside it; both are uploaded."""
    path = tmp_path / "m.pt"
    torch.save({"tok.weight": torch.arange(8.0).view(4, 2)}, path)
    tws.save_vocabularies(path, {"tok.weight": OLD})
    upload(tmp_path, remote)
    return f"{remote}/m.pt", tmp_path


def start(url, info, **options):
    model = nn.Module()
    model.tok = nn.Embedding(3, 2)
    infos = {"tok.weight": info}
    tws.warm_start(model, tws.WarmStartSettings(url, ".*", infos, **options))
    return model.tok.weight.tolist()


def test_it_is_read_when_it_is_asked_for(saved, requests: Requests):
    url, _ = saved
    assert start(url, tws.VocabInfo(NEW)) == [[6, 7], [0, 0], [2, 3]]
    assert {name for name in requests.files if ".warmstart" in name}


def test_else_nothing_beside_is_looked_at(saved, requests: Requests, monkeypatch):
    url, _ = saved
    asked = []
    exists = Storage.exists
    monkeypatch.setattr(Storage, "exists", lambda self, at: asked.append(at) or exists(self, at))
    assert start(url, tws.VocabInfo(NEW, old_vocab=OLD)) == [[6, 7], [0, 0], [2, 3]]
    shuffled = ["b", "a", "c", "d"]  # which would be a warning beside a local one
    assert start(url, tws.VocabInfo(NEW, old_vocab=shuffled)) == [[6, 7], [0, 0], [0, 1]]
    assert not [name for name in requests.files if ".warmstart" in name]
    assert not [at for at in asked if ".warmstart" in at]


@pytest.mark.parametrize(
    "name",
    [
        "memory://elsewhere/m.pt.warmstart-{}.vocab",
        "https://example.org/m.pt.warmstart-{}.vocab",
        "/etc/m.pt.warmstart-{}.vocab",
        "../m.pt.warmstart-{}.vocab",
        "%2e%2e/m.pt.warmstart-{}.vocab",
        "m.pt/../../m.pt.warmstart-{}.vocab",
        "m.pt.warmstart-{}.vocab?x=1",
        "file:///m.pt.warmstart-{}.vocab",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(saved, requests: Requests, name):
    url, folder = saved
    path = folder / "m.pt.warmstart.json"
    about = json.loads(path.read_text())
    about["vocabularies"]["tok.weight"]["file"] = name.format("0" * 32)
    put(f"{url}.warmstart.json", json.dumps(about).encode())
    with pytest.raises(tws.WarmStartError, match="not called as we call them"):
        start(url, tws.VocabInfo(NEW))
    assert not [name for name in requests.files if name.endswith(".vocab")]


def test_what_is_too_long_or_of_another_length_is_not_read(saved, requests: Requests):
    url, folder = saved
    put(f"{url}.warmstart.json", b" " * ((16 << 20) + 1))
    with pytest.raises(tws.WarmStartError, match="which no such file has"):
        start(url, tws.VocabInfo(NEW))
    assert requests.nbytes < 1 << 20
    text = (folder / "m.pt.warmstart.json").read_bytes()
    put(f"{url}.warmstart.json", text)
    (data,) = [name for name in os.listdir(folder) if name.endswith(".vocab")]
    put(f"{url.rpartition('/')[0]}/{data}", (folder / data).read_bytes() + b"\0" * (1 << 20))
    before = requests.nbytes
    with pytest.raises(tws.WarmStartError, match="has .* bytes, but .* says"):
        start(url, tws.VocabInfo(NEW))
    assert requests.nbytes - before < 1 << 20
    about = json.loads(text)
    about["vocabularies"]["tok.weight"]["size"] = 1 << 40
    put(f"{url}.warmstart.json", json.dumps(about).encode())
    with pytest.raises(tws.WarmStartError, match="a size of it is none"):
        start(url, tws.VocabInfo(NEW))


def test_a_page_in_its_place_is_our_error(saved):
    url, _ = saved
    for page in (b"<html>not found</html>", b"[]", b"null", b"[" * 100_000, b'{"format": 1}'):
        put(f"{url}.warmstart.json", page)
        with pytest.raises(tws.WarmStartError, match="is damaged"):
            start(url, tws.VocabInfo(NEW))


def test_a_signed_url_has_nothing_beside_it():
    assert not sidecar_vocabularies("https://example.org/m.pt?X-Amz-Signature=1", Storage())
