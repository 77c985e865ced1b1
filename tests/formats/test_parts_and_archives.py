"""Files that are a part of something, or have the checkpoint in them: taken, or said to be that."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import cramjam
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

import torch_warmstart as tws

W = torch.ones(4, 4)


def _model(*names):
    return nn.ModuleDict({name: nn.Linear(4, 4, bias=False) for name in names})


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_shard_by_itself_says_that_it_is_one(suffix, tmp_path):
    path = str(tmp_path / f"model-00001-of-00002.{suffix}")
    (save_file if suffix == "safetensors" else torch.save)({"a.weight": W.clone()}, path)
    tws.warm_start(_model("a"), path)
    with pytest.raises(tws.PlanError, match="one of 2 files") as error:
        tws.warm_start(_model("a", "b"), path)
    assert [problem.code for problem in error.value.problems] == ["one-of-several-files"]
    with pytest.warns(tws.WarmStartWarning, match="one of 2 files"):
        tws.warm_start(_model("a", "b"), tws.WarmStartSettings(path, on_missing="keep"))


def test_the_second_model_of_accelerate_is_mentioned(tmp_path):
    save_file({"a.weight": W.clone()}, tmp_path / "model.safetensors")
    save_file({"b.weight": W.clone()}, tmp_path / "model_1.safetensors")
    tws.warm_start(_model("a"), str(tmp_path))
    with pytest.raises(tws.PlanError, match=r"'model_1\.safetensors'"):
        tws.warm_start(_model("b"), str(tmp_path))
    tws.warm_start(_model("b"), str(tmp_path / "model_1.safetensors"))


class Tied(nn.Module):
    def __init__(self, *, is_tied):
        super().__init__()
        self.table = nn.Embedding(4, 4)
        self.head = nn.Linear(4, 4, bias=False)
        if is_tied:
            self.head.weight = self.table.weight


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_tied_weight_that_is_saved_once_has_both_names(is_tied, tmp_path):
    path = str(tmp_path / "m.safetensors")
    original = Tied(is_tied=True)
    save_model(original, path)
    model = Tied(is_tied=is_tied)
    tws.warm_start(model, path)
    assert torch.equal(model.table.weight, original.table.weight)
    assert torch.equal(model.head.weight, original.table.weight)
    with tws.load_checkpoint(path) as checkpoint:
        assert torch.equal(checkpoint.get_tensor("head.weight"), original.table.weight)
        assert checkpoint.spec("head.weight").storage == checkpoint.spec("table.weight").storage


def test_metadata_that_names_no_tensor_is_none(tmp_path):
    path = str(tmp_path / "m.safetensors")
    save_file({"pt": W.clone()}, path, metadata={"format": "pt", "pt": "pt", "x": "nowhere"})
    assert [name for name, _ in tws.list_variables(path)] == ["pt"]


@pytest.mark.parametrize("inner", ["weight", "0.weight"])
def test_a_module_of_the_model_that_is_an_entry_of_its_own(inner, tmp_path):
    path = str(tmp_path / "nmt.pt")
    torch.save({"model": {"a.weight": W}, "generator": {inner: W * 2}, "opt": {"x": W}}, path)
    layer = nn.Linear(4, 4, bias=False)
    model = nn.ModuleDict(
        {
            "a": nn.Linear(4, 4, bias=False),
            "generator": layer if inner == "weight" else nn.Sequential(layer),
        }
    )
    tws.warm_start(model, path)
    assert layer.weight.eq(2).all()
    assert model["a"].weight.eq(1).all()


def _tar(path, mode):
    data = io.BytesIO()
    torch.save({"a.weight": W}, data)
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as file:
        info = tarfile.TarInfo("weights.ckpt")
        info.size = len(data.getvalue())
        file.addfile(info, io.BytesIO(data.getvalue()))


@pytest.mark.parametrize("name", ["model.th", "model.keras", "other.safetensors"])
def test_folders_and_archives_name_the_same_files(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as file:
        file.writestr(f"data/{name}", b"x")
    with pytest.raises(tws.CheckpointError, match=rf"Pass the file .*{name}"):
        tws.load_checkpoint(str(tmp_path / "folder"))
    with pytest.raises(tws.WarmStartError, match=name):
        tws.load_checkpoint(str(tmp_path / "m.zip"))


def test_archives_are_said_to_be_archives(tmp_path):
    _tar(tmp_path / "m.tar", "w")
    _tar(tmp_path / "m.nemo", "w:gz")
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as file:
        file.writestr("data", "{}")
        file.writestr("policy.pth", b"x")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("data", "{}")
    expected = {
        "m.tar": r"tar archive that begins with 'weights\.ckpt'",
        "m.nemo": "compressed by gzip",
        "m.zip": r"'policy\.pth' in it",
        "other.zip": "zip archive without",
    }
    for name, text in expected.items():
        with pytest.raises(tws.WarmStartError, match=text) as error:
            tws.load_checkpoint(str(tmp_path / name))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("gzip", gzip.compress),
        ("bzip2", bz2.compress),
        ("xz", lzma.compress),
        ("zstd", lambda data: bytes(cramjam.zstd.compress(data))),
    ],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
def test_compressed_vectors_are_to_be_unpacked(tmp_path, name, pack):
    path = str(tmp_path / "cc.vec.packed")
    (tmp_path / "cc.vec.packed").write_bytes(pack(b"a 0.5 1.5 2.5\nb 3.5 4.5 5.5\n"))
    made = tws.init.vectors(path, align=None)
    info = tws.VocabInfo(["a", "b"], old_vocab=["a"], backup_initializer=made)
    settings = tws.WarmStartSettings({"weight": torch.ones(1, 3)}, ".*", {"weight": info})
    with pytest.raises(tws.WarmStartError, match=rf"compressed by {name}.* unpack it") as error:
        tws.warm_start(nn.Embedding(2, 3), settings)
    assert "no checkpoint of a known format" not in str(error.value)
