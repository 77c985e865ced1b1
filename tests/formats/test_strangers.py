"""What people pass that is no checkpoint is told for what it is, in a sentence."""

from __future__ import annotations

import argparse
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
STRANGERS = {
    "model.bin": (LFS, "Git LFS pointer"),
    "model.safetensors": (LFS, "git lfs pull"),
    "saved_model.pb": (b"\x08\x01\x12\x05hello", "pass the folder"),
    "m.tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
    "m": (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
    "m.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
    "page.safetensors": (b"\n <!DOCTYPE html><html>404</html>", "page of HTML"),
    "listing": (b"<HTML><body>Index of /models</body></HTML>", "the file itself"),
    "llama.gguf": (b"GGUF\x03\0\0\0" + bytes(64), "GGUF"),
    "flax_model.msgpack": (b"\x81\xa6params\x80", "msgpack"),
    "config.json": (b'{"model_type": "bert"}', "text of JSON"),
    "gone.pt": (b'{"error": "not found"}', "what a server answers"),
    "model.joblib": (b"\x80\x04\x95", "pickle"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_it_is_said_what_a_file_is(tmp_path, name):
    data, told = STRANGERS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(tws.UnsupportedError, match=told) as error:
        tws.load_checkpoint(tmp_path / name)
    assert len(str(error.value).splitlines()) == 1


def test_an_empty_file_is_told(tmp_path):
    (tmp_path / "m.pt").write_bytes(b"")
    with pytest.raises(tws.CorruptCheckpointError, match=r"is empty: 0 bytes\. Copy it again"):
        tws.load_checkpoint(tmp_path / "m.pt")


def test_an_exported_program_is_told(tmp_path):
    program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "m.pt2")
    with pytest.raises(tws.UnsupportedError, match=r"torch\.export"):
        tws.load_checkpoint(tmp_path / "m.pt2")


@pytest.mark.parametrize("value", [{"a": 1}, {"a": [1.5]}, {"w": np.ones(3)}], ids=str)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_told(tmp_path, value, protocol):
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(value, protocol))
    with pytest.raises(tws.UnsupportedError, match="plain pickle"):
        tws.load_checkpoint(tmp_path / "m.pkl")


def test_a_torch_file_with_more_says_how_to_allow_it(tmp_path):
    """Of the format before torch 1.6; in a zip, objects of others are inert."""
    state = {"model": {"weight": torch.ones(2)}, "args": argparse.Namespace(lr=1)}
    torch.save(state, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(tws.UnsupportedError, match=r"torch\.serialization\.safe_globals"):
        tws.load_checkpoint(tmp_path / "m.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        assert list(tws.load_checkpoint(tmp_path / "m.pt")) == ["weight"]


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save({"weight": torch.ones(2)}, tmp_path / "m.pt")
    assert list(tws.load_checkpoint("~/m.pt")) == ["weight"]
