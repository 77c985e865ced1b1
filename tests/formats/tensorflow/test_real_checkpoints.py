"""Checkpoints of public projects, against what TensorFlow reads of them.

They are not part of this repository. Set TORCH_WARMSTART_CHECKPOINTS to a folder of checkpoints
with a manifest.json: `checkpoints` is a list of {prefix, format, tensors}, and `tensors` maps keys
to {dtype, shape, sha256}. The digest is over raw little-endian elements in C order, or for each
string over its length as a 64-bit number and its bytes. Without its data a tensor has no digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from formats_helpers import TORCH_DTYPES, raw

import torch_warmstart as tw
from torch_warmstart.errors import WarmStartError

VARIABLE = "TORCH_WARMSTART_CHECKPOINTS"
FOLDER = Path(os.environ.get(VARIABLE, ""))

pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ, reason=f"{VARIABLE} names no folder of real checkpoints"
)


def manifest(section: str) -> list[dict[str, Any]]:
    if VARIABLE not in os.environ:
        return []
    entries: list[dict[str, Any]] = json.loads((FOLDER / "manifest.json").read_text())[section]
    return entries


CHECKPOINTS = manifest("checkpoints")
V2 = [about for about in CHECKPOINTS if about["format"] == "V2"]
V1 = [about for about in CHECKPOINTS if about["format"] == "V1"]
V1_PREFIXES = {about["prefix"] for about in V1}
STATE_FILES = [s for s in manifest("state_files") if s["latest_checkpoint"] not in V1_PREFIXES]


def by_prefix(entries: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("about", entries, ids=lambda about: str(about["prefix"]))


def digest(value: torch.Tensor | list[bytes]) -> str:
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(raw(value)).hexdigest()
    joined = b"".join(len(string).to_bytes(8, "little") + string for string in value)
    return hashlib.sha256(joined).hexdigest()


@by_prefix(V2)
def test_a_real_checkpoint_is_read_as_tensorflow_reads_it(about: dict[str, Any]) -> None:
    index_only = about["prefix"].startswith("idx-")
    with tw.load_checkpoint(str(FOLDER / about["prefix"])) as checkpoint:
        assert sorted(checkpoint) == sorted(about["tensors"])
        for key, tensor in about["tensors"].items():
            spec = checkpoint.spec(key)
            assert list(spec.shape) == tensor["shape"]
            assert spec.dtype == TORCH_DTYPES.get(tensor["dtype"])
            if not index_only:
                assert digest(checkpoint.get_tensor(key)) == tensor["sha256"], key
        if not index_only:
            checkpoint.full_names()


@pytest.mark.parametrize("about", STATE_FILES, ids=lambda about: str(about["path"]))
def test_a_real_state_file_is_read_as_tensorflow_reads_it(about: dict[str, Any]) -> None:
    directory = (FOLDER / about["path"]).parent
    if about["latest_checkpoint"] is None:
        try:
            found = tw.latest_checkpoint(directory)
        except WarmStartError:
            return
        assert found is not None  # a copy beside the state file, which TensorFlow does not look for
        assert Path(found).name == Path(about["model_checkpoint_path"]).name
    else:
        found = tw.latest_checkpoint(directory)
        assert found is not None
        assert Path(found) == FOLDER / about["latest_checkpoint"]


TORCH_FILES = [o for o in manifest("other_formats") if o["path"].endswith((".pt", ".pth"))]
SAFETENSORS = [o for o in manifest("other_formats") if o["path"].endswith(".safetensors")]


def by_path(entries: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("about", entries, ids=lambda about: str(about["path"]))


@by_path(TORCH_FILES)
def test_a_real_torch_file_is_read_as_torch_reads_it(about: dict[str, Any]) -> None:
    path = FOLDER / about["path"]
    loaded = torch.load(path, weights_only=True)
    nested = [value for value in loaded.values() if isinstance(value, dict)]
    expected = loaded if any(isinstance(v, torch.Tensor) for v in loaded.values()) else nested[0]
    with tw.load_checkpoint(path) as checkpoint:
        assert list(checkpoint) == list(expected)
        for key, tensor in expected.items():
            assert checkpoint.spec(key).shape == tuple(tensor.shape)
            assert torch.equal(checkpoint.get_tensor(key), tensor)


@by_path(SAFETENSORS)
def test_a_real_safetensors_file_is_read_as_the_library_reads_it(about: dict[str, Any]) -> None:
    from safetensors.torch import load_file

    path = FOLDER / about["path"]
    with tw.load_checkpoint(path) as checkpoint:
        for key, tensor in load_file(path).items():
            assert list(checkpoint.spec(key).shape) == about["tensors"][key][1]
            assert torch.equal(checkpoint.get_tensor(key), tensor)
