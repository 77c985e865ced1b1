"""What docs/formats.md says of always, never, only, each and all: a test for a claim."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from bundle_writer import write_random_bundle
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws
from torch_warmstart.cli import main
from torch_warmstart.formats import Checkpoint

TENSORS = {"a.weight": torch.arange(6.0).reshape(3, 2), "a.bias": torch.ones(3)}
DOC = Path(__file__).parents[2] / "docs" / "formats.md"


def write_all(folder: Path) -> dict[str, Path]:
    """A file of each format of one file, by its name for `format=`."""
    files = {name: folder / f"{name}.x" for name in ("safetensors", "torch", "torch-legacy")}
    save_file(TENSORS, files["safetensors"])
    torch.save(TENSORS, files["torch"])
    torch.save(TENSORS, files["torch-legacy"], _use_new_zipfile_serialization=False)
    for name, write in (
        ("npy", lambda f: np.save(f, TENSORS["a.weight"].numpy())),
        ("npz", lambda f: np.savez(f, **{k: v.numpy() for k, v in TENSORS.items()})),
    ):
        files[name] = folder / f"{name}.x"
        with files[name].open("wb") as file:
            write(file)
    files["keras-h5"] = folder / "h5.x"
    with h5py.File(files["keras-h5"], "w") as file:
        for key, value in TENSORS.items():
            file[key] = value.numpy()
    files["text-vectors"] = folder / "text.x"
    files["text-vectors"].write_text("a 0.5 1\nb 1 2\n")
    files["word2vec-bin"] = folder / "bin.x"
    rows = (t + np.float32([0.1, -0.3]).tobytes() for t in (b"a ", b"b "))
    files["word2vec-bin"].write_bytes(b"2 2\n" + b"".join(rows))
    return files


def test_a_format_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    for name, path in write_all(tmp_path).items():
        with tws.load_checkpoint(path) as one, tws.load_checkpoint(path, format=name) as two:
            assert one.format == two.format
            assert list(one) == list(two)


def test_each_format_of_the_table_is_one_and_they_are_tried_in_its_order(tmp_path: Path) -> None:
    listed = re.findall(
        r"^\| `([\w-]+)` \|", DOC.read_text().partition("## Keras")[0], re.MULTILINE
    )
    (tmp_path / "x").write_bytes(b"what is this?")
    with pytest.raises(tws.CheckpointError) as caught:
        tws.load_checkpoint(tmp_path / "x")
    looked_for = [line for line in str(caught.value).splitlines()[1:] if line.startswith("  ")]
    assert len(looked_for) == len(listed)
    for name in listed:
        with pytest.raises(tws.WarmStartError):
            tws.load_checkpoint(tmp_path / "x", format=name)
    with pytest.raises(tws.SettingsError, match=listed[0]):
        tws.load_checkpoint(tmp_path / "x", format="no-such")


def test_state_dicts_modules_and_open_checkpoints_are_taken_as_they_are() -> None:
    layer = nn.Linear(2, 3)
    opened = tws.load_checkpoint(TENSORS)
    for source in (TENSORS, opened):
        tws.warm_start(nn.ModuleDict({"a": layer}), source)
        assert torch.equal(layer.weight, TENSORS["a.weight"])
    other = nn.ModuleDict({"a": nn.Linear(2, 3)})
    tws.warm_start(other, nn.ModuleDict({"a": layer}))
    assert torch.equal(other["a"].weight, layer.weight)


def test_of_nested_files_the_only_mapping_is_taken_otherwise_entry_says_which() -> None:
    assert set(tws.load_checkpoint({"model": TENSORS, "epoch": 3})) == set(TENSORS)
    several = {"ema": {"model": TENSORS}, "raw": {"model": TENSORS}}
    with pytest.raises(tws.WarmStartError, match="entry"):
        tws.load_checkpoint(several)
    assert set(tws.load_checkpoint(several, entry="ema/model")) == set(TENSORS)


def test_nobody_can_write_into_the_file_through_a_tensor(tmp_path: Path) -> None:
    for path in write_all(tmp_path).values():
        before = path.read_bytes()
        with tws.load_checkpoint(path) as checkpoint:
            for key in checkpoint:
                checkpoint.get_tensor(key).fill_(5)
        assert path.read_bytes() == before


def test_rows_are_those_of_the_tensor_in_every_format(tmp_path: Path) -> None:
    for path in write_all(tmp_path).values():
        with tws.load_checkpoint(path) as checkpoint:
            for key in checkpoint:
                whole = checkpoint.get_tensor(key)
                some = torch.tensor([1, 0, 1])
                assert torch.equal(checkpoint.get_tensor(key, some), whole[some])


# -- what is refused -------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def evil(folder: Path) -> Evil:
    made = Evil()
    made.path = folder / "made"
    return made


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_holds_more_is_refused_and_runs_no_code(tmp_path: Path, new: bool) -> None:
    holds = {"a": torch.ones(1), "b": evil(tmp_path)}
    torch.save(holds, tmp_path / "c.pt", _use_new_zipfile_serialization=new)
    with pytest.raises(tws.WarmStartError):
        tws.load_checkpoint(tmp_path / "c.pt")
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(holds["b"]))
    with pytest.raises(tws.WarmStartError):
        tws.load_checkpoint(tmp_path / "p.pkl")
    assert not (tmp_path / "made").exists()


def test_torchscript_archives_are_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "c.pt")
    with pytest.raises(tws.WarmStartError, match="TorchScript"):
        tws.load_checkpoint(tmp_path / "c.pt")


def test_pickled_objects_in_numpy_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.array([evil(tmp_path)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "c.npz", c=np.array([evil(tmp_path)], dtype=object))
    for name in ("c.npy", "c.npz"):
        with pytest.raises(tws.WarmStartError), tws.load_checkpoint(tmp_path / name) as checkpoint:
            checkpoint.get_tensor("c")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("link", [h5py.SoftLink("/a"), h5py.ExternalLink("other.h5", "a")])
def test_links_in_hdf5_files_are_refused(tmp_path: Path, link) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.ones(3)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["a"], file["b"] = np.zeros(3), link
    with pytest.raises(tws.WarmStartError), tws.load_checkpoint(tmp_path / "c.h5") as checkpoint:
        checkpoint.get_tensor("b")


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/secret.safetensors", "a/../../s"])
def test_shards_outside_the_directory_are_refused(tmp_path: Path, shard: str) -> None:
    (tmp_path / "m").mkdir()
    save_file(TENSORS, tmp_path / "secret.safetensors")
    index = tmp_path / "m" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(TENSORS, shard)}))
    for path in (index, index.parent):
        with pytest.raises(tws.WarmStartError), tws.load_checkpoint(path) as checkpoint:
            checkpoint.get_tensor("a.bias")


# -- verification, sizes, names --------------------------------------------------------------------


def test_what_has_checksums_is_checked_before_it_is_handed_out(tmp_path: Path) -> None:
    write_random_bundle(str(tmp_path / "c"), {"v": (4,)})
    np.savez(tmp_path / "n.npz", v=np.ones(4))
    for opened, data in (
        (tmp_path / "c", next(tmp_path.glob("c.data*"))),
        (tmp_path / "n.npz",) * 2,
    ):
        raw = data.read_bytes()
        at = raw.index(tws.load_variable(opened, "v").numpy().tobytes())
        data.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with tws.load_checkpoint(opened) as checkpoint:
            with pytest.raises(tws.CorruptCheckpointError):
                checkpoint.get_tensor("v")
            checkpoint.get_tensor("v", torch.tensor([3]))  # rows are not checked
            with pytest.raises(tws.CorruptCheckpointError):
                checkpoint.verify("v")
        with tws.load_checkpoint(opened, verify=False) as checkpoint:
            checkpoint.get_tensor("v")


def test_every_size_is_compared_with_the_file_before_memory_is_taken_for_it(tmp_path: Path) -> None:
    huge = 1 << 44
    header = {"a": {"dtype": "F32", "shape": [huge], "data_offsets": [0, 4 * huge]}}
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    (tmp_path / "b").write_bytes(struct.pack("<Q", huge) + text + bytes(16))
    (tmp_path / "c").write_bytes(b"%d 100\na " % huge + bytes(400))
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": (huge,)}
    )
    (tmp_path / "d").write_bytes(head.getvalue() + bytes(16))
    for name, kind in (
        ("a", "safetensors"),
        ("b", "safetensors"),
        ("c", "word2vec-bin"),
        ("d", "npy"),
    ):
        with pytest.raises(tws.WarmStartError):
            tws.load_checkpoint(tmp_path / name, format=kind)


def test_reading_writes_no_file(tmp_path: Path) -> None:
    files = write_all(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for path in files.values():
        with tws.load_checkpoint(path) as checkpoint:
            [checkpoint.get_tensor(key) for key in checkpoint]
    assert sorted(tmp_path.rglob("*")) == before


def test_no_control_character_of_a_name_reaches_the_terminal(tmp_path: Path, capsys) -> None:
    save_file({"a\x1b[31m\n\u202eb": torch.ones(2)}, tmp_path / "c.safetensors")
    assert main(["inspect", str(tmp_path / "c.safetensors")]) == 0
    shown = capsys.readouterr().out
    assert not any(c in shown for c in "\x1b\u202e")


def test_inspect_reads_a_tensor_for_values_only_and_its_exit_codes_are_as_said(
    tmp_path: Path, capsys, monkeypatch
) -> None:
    write_random_bundle(str(tmp_path / "c"), {"v": (4,)})
    prefix, read = str(tmp_path / "c"), []
    real = Checkpoint.get_tensor
    monkeypatch.setattr(Checkpoint, "get_tensor", lambda *of: read.append(of[1]) or real(*of))
    assert main(["inspect", prefix]) == 0
    assert not read
    assert main(["inspect", prefix, "--values", "v"]) == 0
    assert read == ["v"]
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "no")]) == 2
    assert capsys.readouterr().err.strip()
    assert main(["inspect", prefix, "--sort", "nothing"]) == 2


def test_every_way_to_name_a_tensorflow_checkpoint_finds_it(tmp_path: Path) -> None:
    write_random_bundle(str(tmp_path / "model.ckpt-100"), {"v": (4,)})
    for name in (
        "model.ckpt-100",
        "model.ckpt-100.index",
        "model.ckpt-100.data-00000-of-00001",
        "",
    ):
        assert list(tws.load_checkpoint(tmp_path / name)) == ["v"]


def test_a_compressed_member_of_a_zip_is_read_as_well(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", v=np.arange(4.0))
    member = zipfile.ZipFile(tmp_path / "a.npz").read("v.npy")
    with zipfile.ZipFile(tmp_path / "b", "w", zipfile.ZIP_DEFLATED) as new:
        new.writestr("v.npy", member)
    assert tws.load_variable(tmp_path / "b", "v").tolist() == [0.0, 1.0, 2.0, 3.0]
