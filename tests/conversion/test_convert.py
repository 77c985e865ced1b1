"""A checkpoint, or a model that it is loaded into, written into a file, whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import weakref

import pytest
import safetensors.torch
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn

import torch_warmstart as tws
from torch_warmstart.conversion import pieces, torch_file

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
]
ENDINGS = ["safetensors", "pt"]


def state() -> dict[str, torch.Tensor]:
    tensors = {f"of.{dtype}": torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    return {
        **tensors,
        "scalar": torch.tensor(3.5),
        "none": torch.zeros(0, 4),
        "turned": torch.arange(12.0).reshape(3, 4).t(),
        "odd": torch.arange(7, dtype=torch.int8),
    }


def read(path) -> dict[str, torch.Tensor]:
    """By the library that the format is from."""
    if str(path).endswith(".safetensors"):
        return safetensors.torch.load_file(path)
    return torch.load(path, weights_only=True)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_written_is_read_by_the_formats_own_library(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    done = tws.convert(state(), path)
    found = read(path)
    assert set(found) == set(state()) == set(done.keys)
    assert all(same(found[key], value) for key, value in state().items())
    assert done.nbytes == sum(value.nbytes for value in state().values())
    assert done.left_out == {}


@pytest.mark.parametrize("ending", ENDINGS)
def test_blocks_do_not_change_what_is_written(tmp_path, ending, monkeypatch):
    tws.convert(state(), tmp_path / f"one.{ending}")
    monkeypatch.setattr(pieces, "BLOCK", 5)
    tws.convert(state(), tmp_path / f"two.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_a_torch_file_can_be_mapped_and_its_tensors_are_aligned(tmp_path):
    tws.convert(state(), tmp_path / "out.pt")
    found = torch.load(tmp_path / "out.pt", mmap=True, weights_only=True)
    assert same(found["of.torch.float64"], state()["of.torch.float64"])
    begins = [t.data_ptr() % 64 for t in found.values() if t.numel()]
    assert not any(begins)


def test_a_large_member_is_a_zip64_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file, "_FROM_ZIP64", 16)
    tws.convert(state(), tmp_path / "out.pt")
    found = read(tmp_path / "out.pt")
    assert all(same(found[key], value) for key, value in state().items())


def test_tensors_that_are_one_are_written_once_into_a_torch_file(tmp_path):
    table = torch.ones(1000, 10)
    tws.convert({"a": table, "b": table}, tmp_path / "out.pt")
    assert os.path.getsize(tmp_path / "out.pt") < 1.5 * table.nbytes
    found = read(tmp_path / "out.pt")
    assert found["a"].data_ptr() == found["b"].data_ptr()


@pytest.mark.parametrize("ending", ENDINGS)
def test_one_tensor_is_held_at_a_time(tmp_path, ending, monkeypatch):
    tensors = {f"t{n:02d}": torch.ones(100) for n in range(8)}
    safetensors.torch.save_file(tensors, tmp_path / "in.safetensors")
    given: list[weakref.ref[torch.Tensor]] = []
    checkpoint = tws.load_checkpoint(tmp_path / "in.safetensors")
    view = type(checkpoint).view_tensor

    def watched(self, key, rows=None):
        assert not any(tensor() is not None for tensor in given)
        tensor = view(self, key, rows)
        given.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(type(checkpoint), "view_tensor", watched)
    tws.convert(checkpoint, tmp_path / f"out.{ending}")
    assert len(given) == len(tensors)


# -- whose layouts ---------------------------------------------------------------------------------


def bundle(folder, **shapes: tuple[int, ...]) -> str:
    entries = [
        BundleEntry(key.replace("__", "/"), DType.FLOAT, shape, torch.rand(shape).numpy().tobytes())
        for key, shape in shapes.items()
    ]
    write_bundle(folder / "ckpt", entries)
    return str(folder / "ckpt")


def test_a_safetensors_file_says_that_its_layouts_are_tensorflows(tmp_path):
    source = bundle(tmp_path, dense__kernel=(3, 3), dense__bias=(3,))
    tws.convert(source, tmp_path / "out.safetensors")
    models = [nn.ModuleDict({"dense": nn.Linear(3, 3)}) for _ in range(2)]
    for model, where in zip(models, (source, tmp_path / "out.safetensors"), strict=True):
        tws.warm_start(model, where)
    assert torch.equal(models[0].dense.weight, models[1].dense.weight)
    assert tws.load_checkpoint(tmp_path / "out.safetensors").family == "tensorflow"


def test_a_torch_file_that_could_not_say_so_is_refused(tmp_path):
    source = bundle(tmp_path, dense__w=(3, 3))
    with pytest.raises(tws.SettingsError, match="would not say that its tensors are laid out"):
        tws.convert(source, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_kernels_that_are_torchs_are_not_written_where_they_would_be_taken_for_others(tmp_path):
    source = tmp_path / "own.safetensors"
    kernel = {"dense.kernel": torch.ones(3, 3)}
    safetensors.torch.save_file(kernel, source, metadata={"format": "pt"})
    with pytest.raises(tws.SettingsError, match="laid out as in torch, and their names do not"):
        tws.convert(source, tmp_path / "out.pt")


def test_names_that_say_it_will_do(tmp_path):
    tws.convert(bundle(tmp_path, dense__kernel=(3, 3)), tmp_path / "out.pt")
    assert tws.load_checkpoint(tmp_path / "out.pt").family == "tensorflow_or_flax"


def test_what_no_format_can_hold_is_left_out_and_said(tmp_path):
    entries = [
        BundleEntry("kernel", DType.FLOAT, (2,), bytes(8)),
        BundleEntry("v", DType.VARIANT, (1,), bytes(1)),
        BundleEntry("c", DType.COMPLEX128, (1,), bytes(16)),
    ]
    write_bundle(tmp_path / "ckpt", entries)
    done = tws.convert(str(tmp_path / "ckpt"), tmp_path / "out.safetensors")
    assert done.keys == ("kernel",)
    assert set(done.left_out) == {"v", "c"}
    assert "Left out v: variant is nothing that torch can hold" in str(done)
    document = done.to_dict()
    assert (document["version"], document["totals"]["left_out"]) == (1, 2)
    assert json.loads(json.dumps(document))


# -- a model's state -------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_state_of_a_model_that_it_is_loaded_into(tmp_path, ending):
    source = bundle(tmp_path, fc__kernel=(2, 3), fc__bias=(3,))
    model = nn.ModuleDict({"fc": nn.Linear(2, 3), "norm": nn.BatchNorm1d(3)})
    settings = tws.WarmStartSettings("elsewhere", "fc")
    done = tws.convert(source, tmp_path / f"m.{ending}", model=model, settings=settings)
    found = read(tmp_path / f"m.{ending}")
    assert set(found) == set(model.state_dict()) == set(done.keys)
    fresh = nn.ModuleDict({"fc": nn.Linear(2, 3), "norm": nn.BatchNorm1d(3)})
    fresh.load_state_dict(found)
    assert torch.equal(fresh.fc.weight.t(), tws.load_variable(source, "fc/kernel"))


def test_a_models_versions_go_with_its_state(tmp_path):
    model = nn.ModuleDict({"norm": nn.BatchNorm1d(3)})
    tws.convert(model, tmp_path / "in.pt")
    tws.convert({**model.state_dict()}, tmp_path / "m.pt", model=model)
    assert torch.load(tmp_path / "m.pt")._metadata == model.state_dict()._metadata


def test_a_dry_run_writes_nothing_and_leaves_the_model(tmp_path):
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    source = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    done = tws.convert(source, tmp_path / "m.pt", model=model, dry_run=True)
    assert not done.written
    assert str(done).startswith("Would write")
    assert not list(tmp_path.iterdir())
    assert torch.equal(model.weight, before)


def test_the_model_is_left_alone_if_the_file_cannot_be_written(tmp_path):
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    (tmp_path / "m.pt").write_text("mine")
    with pytest.raises(tws.SettingsError, match="is there already"):
        tws.convert(
            {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, tmp_path / "m.pt", model=model
        )
    assert torch.equal(model.weight, before)
    assert (tmp_path / "m.pt").read_text() == "mine"


# -- whole or not at all ---------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_there_is_replaced_only_if_asked_for(tmp_path, ending):
    path = tmp_path / f"out.{ending}"
    path.write_bytes(b"mine")
    with pytest.raises(tws.SettingsError, match="--force"):
        tws.convert(state(), path)
    assert path.read_bytes() == b"mine"
    tws.convert(state(), path, force=True)
    assert set(read(path)) == set(state())
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_error_while_writing_leaves_what_was_there(tmp_path, ending, monkeypatch):
    path = tmp_path / f"out.{ending}"
    path.write_bytes(b"mine")

    def fail(self):
        raise tws.CorruptCheckpointError("damaged")

    monkeypatch.setattr(pieces.Piece, "blocks", fail)
    with pytest.raises(tws.CorruptCheckpointError):
        tws.convert(state(), path, force=True)
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [(path.name, b"mine")]


def test_a_damaged_tensor_is_an_error(tmp_path):
    write_bundle(tmp_path / "ckpt", [BundleEntry("kernel", DType.INT32, (), bytes(4), crc=1)])
    with pytest.raises(tws.CorruptCheckpointError, match="checksum"):
        tws.convert(str(tmp_path / "ckpt"), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_the_file_has_the_rights_of_any_new_file(tmp_path):
    tws.convert(state(), tmp_path / "out.pt")
    (tmp_path / "other").touch()
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("out.pt", "other")}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("out.onnx", "the name's ending says what is written"),
        ("s3://bucket/out.pt", "is a URL"),
        ("folder.pt", "is a directory"),
    ],
)
def test_where_nothing_can_be_written(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder.pt")
    with pytest.raises(tws.SettingsError, match=message):
        tws.convert(state(), path)


def test_settings_without_a_model_are_refused(tmp_path):
    with pytest.raises(tws.SettingsError, match="without a model"):
        tws.convert(state(), tmp_path / "out.pt", settings=tws.WarmStartSettings("x"))


def test_what_is_no_tensor_of_the_file_is_told(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    torch.save(saved, tmp_path / "old.pt")
    done = tws.convert(tmp_path / "old.pt", tmp_path / "new.safetensors")
    assert set(done.keys) == {"weight", "bias"}
    assert done.left_out == {
        "optimizer": "an optimizer's state",
        "epoch": "3, which is no tensor",
    }


def test_optimizers_in_files_of_their_own_are_not_read(tmp_path):
    weights = {"weight": torch.ones(2, 2)}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "optimizer.bin").write_bytes(b"no torch file")
    done = tws.convert(tmp_path, tmp_path / "new.pt")
    assert done.left_out == {}
    assert same(read(tmp_path / "new.pt")["weight"], weights["weight"])


def test_an_entry_that_begins_as_a_weight_does_is_told(tmp_path):
    model = nn.ModuleDict({"optim": nn.Linear(2, 2)})
    optimizer = torch.optim.Adam(model.parameters())
    model["optim"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optim": optimizer.state_dict()}, tmp_path / "a.pt")
    assert "optim" in tws.convert(tmp_path / "a.pt", tmp_path / "b.pt").left_out


def test_what_a_file_of_keras_says_of_its_layers_is_told_to_be_left_out(tmp_path):
    import keras

    layer = keras.layers.GRU(2, go_backwards=True, name="gru")
    keras.Sequential([keras.layers.Input((3, 2)), layer]).save(tmp_path / "m.keras")
    model = nn.ModuleDict({"gru": nn.GRU(2, 2)})
    with pytest.raises(tws.PlanError, match="go_backwards=True"):
        tws.plan_warm_start(model, tmp_path / "m.keras")
    done = tws.convert(tmp_path / "m.keras", tmp_path / "m.safetensors")
    assert len(done.keys) == 3
    assert "what the file says of its layers" in done.left_out


class Unsaved(nn.Linear):
    def state_dict(self, *args, **kwargs):
        raise RuntimeError("not now")


def test_a_model_that_does_not_say_its_state_is_left_as_it_is(tmp_path):
    model = Unsaved(2, 2)
    before = model.weight.detach().clone()
    path = tmp_path / "out.safetensors"
    with pytest.raises(tws.WarmStartError, match=r"state_dict\(\) raised RuntimeError: not now"):
        tws.convert({"weight": torch.eye(2), "bias": torch.ones(2)}, path, model=model)
    assert torch.equal(model.weight, before)
    assert not path.exists()
