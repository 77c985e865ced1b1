"""Nested torch checkpoints, refused pickles, and torch files behind URLs."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from remote_files import Requests, put, remote, requests

import torch_warmstart as tw
from torch_warmstart.errors import (
    CorruptCheckpointError,
    SettingsError,
    StorageError,
    UnsupportedError,
    WarmStartError,
)

__all__ = ["remote", "requests"]  # fixtures


class Runs:
    """A pickle of this creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._path), "w"))


def weights(fill: float = 1.0, count: int = 2) -> dict[str, torch.Tensor]:
    return {f"layer{i}.weight": torch.full((2, 3), fill) for i in range(count)}


def optimizer() -> dict[str, Any]:
    parameter = torch.nn.Parameter(torch.ones(3))
    adam = torch.optim.Adam([parameter])
    parameter.sum().backward()
    adam.step()
    return adam.state_dict()


def first(checkpoint: tw.Checkpoint) -> float:
    return float(checkpoint.get_tensor("layer0.weight")[0, 0])


@pytest.fixture(params=["memory", "zip", "legacy"])
def give(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """What load_checkpoint is given: the container itself, or a file that holds it."""

    def prepare(contents: Any) -> Any:
        if request.param == "memory":
            return contents
        path = tmp_path / "model.pt"
        torch.save(contents, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return prepare


# ---- The only entry there is -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "module", "weights"])
def test_the_only_mapping_with_tensors_is_taken(give: Any, name: str) -> None:
    contents = {"epoch": 3, name: weights(), "optimizer": optimizer(), "args": {"lr": 0.1}}
    checkpoint = tw.load_checkpoint(give(contents))

    assert list(checkpoint) == ["layer0.weight", "layer1.weight"]
    assert checkpoint.format.endswith(f", entry {name!r}")


def test_a_mapping_one_level_further_down_is_taken(give: Any) -> None:
    checkpoint = tw.load_checkpoint(give({"checkpoint": {"step": 1, "model": weights(5)}}))

    assert first(checkpoint) == 5
    assert checkpoint.format.endswith("entry 'checkpoint/model'")


def test_a_state_dict_is_taken_as_it_is(give: Any) -> None:
    state = {**weights(), "layer._extra_state": {"scale": torch.ones(1)}, "note": {"model": "x"}}

    assert list(tw.load_checkpoint(give(state))) == ["layer0.weight", "layer1.weight"]


def test_tensors_beside_the_weights_do_not_count(give: Any) -> None:
    checkpoint = tw.load_checkpoint(give({"model": weights(), "loss": torch.tensor(0.5)}))

    assert list(checkpoint) == ["layer0.weight", "layer1.weight"]


def test_a_lightning_checkpoint_is_taken_by_its_state_dict(give: Any) -> None:
    contents = {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": weights(7),
        "optimizer_states": [optimizer()],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0)}},
        "loops": {"fit_loop": {"state_dict": {}}},
    }

    assert first(tw.load_checkpoint(give(contents))) == 7


def test_the_versions_of_a_nested_state_dict_are_kept(give: Any) -> None:
    contents = {"model": torch.nn.BatchNorm1d(3).state_dict()}

    assert tw.load_checkpoint(give(contents)).metadata() == {"": {"version": 2}}


# ---- The entry that is asked for ---------------------------------------------------------------


def test_several_entries_are_listed(give: Any) -> None:
    contents = {"model": weights(), "ema_model": weights(count=1), "optimizer": optimizer()}

    message = (
        r"holds tensors in several entries: 'model' \(2 tensors: '.*', \.\.\.\), "
        r"'ema_model' \(1 tensor: '.*'\)\. "
        r"Say which one is meant: entry='model' or entry='ema_model'; entry='' is all of them"
    )
    with pytest.raises(SettingsError, match=message):
        tw.load_checkpoint(give(contents))
    names = {f"{entry}.{name}" for entry in ("model", "ema_model") for name in contents[entry]}
    assert set(tw.load_checkpoint(give(contents), entry="")) == names


@pytest.mark.parametrize(
    ("entry", "value"),
    [("model", 1), ("ema/model", 2), ("ema", 2), ("a/b", 3), ("a/b/c", 4), ("model/", 1)],
)
def test_an_entry_is_a_path_of_keys(give: Any, entry: str, value: float) -> None:
    contents = {
        "model": weights(1),
        "ema": {"model": weights(2), "decay": 0.9},
        "a/b": {**weights(3), "c": weights(4)},
    }

    assert first(tw.load_checkpoint(give(contents), entry=entry)) == value


def test_settings_take_an_entry(give: Any) -> None:
    model = torch.nn.Linear(2, 2)
    contents = {name: {"weight": torch.full((2, 2), float(fill)), "bias": torch.zeros(2)}
                for fill, name in enumerate(["model", "ema_model"])}  # fmt: skip
    tw.warm_start(model, tw.WarmStartSettings(give(contents), entry="ema_model"))

    assert model.weight.unique().tolist() == [1]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("ema", "has no 'ema', as entry='ema' asks; its keys are 'model', 'x', 'epoch'"),
        ("modle", "Did you mean 'model'?"),
        ("model/encoder", "'model', has no 'encoder', as entry='model/encoder' asks"),
        ("epoch", "entry='epoch' is a int, not a mapping of names to tensors"),
        ("epoch/1", "has no entry='epoch/1': its 'epoch' is a int"),
        ("x", "entry 'x', holds no tensor under a name of its own; its keys are 'y'"),
    ],
)
def test_an_entry_that_is_not_there_is_told(give: Any, entry: str, message: str) -> None:
    contents = {"model": weights(), "x": {"y": 1}, "epoch": 3}

    with pytest.raises(SettingsError) as error:
        tw.load_checkpoint(give(contents), entry=entry)
    assert message in str(error.value)


@pytest.mark.parametrize("entry", ["/", 3, b"model"])
def test_an_entry_that_is_no_path_is_told(entry: Any) -> None:
    message = "entry is a path of keys in a nested checkpoint, such as 'model' or 'ema/model', not"
    with pytest.raises(SettingsError, match=message):
        tw.load_checkpoint({"model": weights()}, entry=entry)
    with pytest.raises(SettingsError, match=message):
        tw.warm_start(
            torch.nn.Linear(1, 1), tw.WarmStartSettings({"model": weights()}, entry=entry)
        )


def test_an_entry_where_there_are_none_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(weights(), tmp_path / "model.safetensors")
    with pytest.raises(SettingsError, match="a safetensors file has no entries to choose from"):
        tw.load_checkpoint(tmp_path / "model.safetensors", entry="model")
    with pytest.raises(SettingsError, match="entry='model' is of no use with a Linear"):
        tw.load_checkpoint(torch.nn.Linear(1, 1), entry="model")


@pytest.mark.parametrize("source", [weights(), torch.nn.Linear(1, 1)], ids=["dict", "module"])
def test_a_format_where_there_is_no_file_is_told(source: Any) -> None:
    with pytest.raises(SettingsError, match="format='safetensors' is of no use with a"):
        tw.load_checkpoint(source, format="safetensors")


def test_an_optimizer_alone_is_no_checkpoint(give: Any) -> None:
    with pytest.raises(SettingsError, match="holds no tensor under a name of its own; its keys"):
        tw.load_checkpoint(give({"optimizer": optimizer(), "epoch": 3}))


def test_tensors_too_far_down_are_told_how_to_reach() -> None:
    contents = {"a": {"b": {"c": weights(3)}}}

    with pytest.raises(SettingsError, match=r"entry='\.\.\.' names a mapping further down"):
        tw.load_checkpoint(contents)
    assert first(tw.load_checkpoint(contents, entry="a/b")) == 3


def test_a_module_in_a_dict_is_told() -> None:
    with pytest.raises(SettingsError, match="Pass the module itself, under 'model'"):
        tw.load_checkpoint({"model": torch.nn.Linear(1, 1)})


# ---- What is refused ---------------------------------------------------------------------------


@pytest.fixture(params=["zip", "legacy"])
def zipped(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "zip")


@pytest.mark.parametrize("forced", [False, True], ids=["", "forced"])
def test_a_pickle_that_would_run_code_never_does(
    tmp_path: Path, zipped: bool, forced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    ran = tmp_path / "ran"
    path = tmp_path / "model.pt"
    torch.save({"model": weights(), "x": Runs(ran)}, path, _use_new_zipfile_serialization=zipped)

    what = "which no file of tensors needs" if zipped else "Load it where you trust it, and pass"
    message = rf"loading that could run code: it asks for (_?io\.|builtins\.)?open[,.] {what}"
    for entry in (None, "model"):
        with pytest.raises(UnsupportedError, match=message) as error:
            tw.load_checkpoint(path, entry=entry)
        assert "add_safe_globals" not in str(error.value)
    assert not ran.exists()


def test_the_class_that_is_refused_is_named(tmp_path: Path) -> None:
    old = {"_use_new_zipfile_serialization": False}
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "m.pt", **old)

    with pytest.raises(UnsupportedError, match=r"it asks for torch\.nn\.modules\.linear\.Linear\."):
        tw.load_checkpoint(tmp_path / "m.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "m.pt"))

    with pytest.raises(UnsupportedError, match=r"TorchScript archive.*with torch\.jit\.load, and"):
        tw.load_checkpoint(tmp_path / "m.pt")


def test_a_zip_that_was_compressed_anew_is_read(tmp_path: Path) -> None:
    state = {"zeros": torch.zeros(5000), "random": torch.rand(100), "one": torch.ones(1)}
    torch.save(state, tmp_path / "m.pt")
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as source,
        zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    checkpoint = tw.load_checkpoint(tmp_path / "z.pt")

    assert all(torch.equal(checkpoint.get_tensor(key), state[key]) for key in state)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_whose_name_is_no_utf_8_is_read(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.pt")
    with path.open("wb") as file:
        torch.save({"w": torch.ones(2)}, file, _use_new_zipfile_serialization=zipped)
    assert torch.equal(tw.load_variable(path, "w"), torch.ones(2))


def test_where_a_tensor_is_is_told(tmp_path: Path) -> None:
    torch.save({"model": weights()}, tmp_path / "m.pt")

    assert tw.load_checkpoint(tmp_path / "m.pt").location("layer0.weight").files == ("m.pt",)


# ---- Behind a URL ------------------------------------------------------------------------------


def saved(contents: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(contents, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def test_a_file_behind_a_url_is_fetched_once(remote: str, requests: Requests, zipped: bool) -> None:
    state = {"a": torch.rand(300, 100), "b": torch.arange(5)}
    data = saved({"model": state, "optimizer": optimizer()}, zipped)
    checkpoint = tw.load_checkpoint(put(f"{remote}/m.pt", data))

    assert all(torch.equal(checkpoint.get_tensor(key), state[key]) for key in state)
    rows = checkpoint.get_tensor("a", torch.tensor([7, 0]))
    assert torch.equal(rows, state["a"][[7, 0]])
    assert requests.nbytes <= len(data)
    assert len(requests.ranges) <= 4


def test_a_pickle_behind_a_url_does_not_run(remote: str, tmp_path: Path, zipped: bool) -> None:
    ran = tmp_path / "ran"
    put(f"{remote}/m.pt", saved({"w": torch.ones(1), "x": Runs(ran)}, zipped))

    with pytest.raises(UnsupportedError, match="loading that could run code: it asks for"):
        tw.load_checkpoint(f"{remote}/m.pt")
    assert not ran.exists()


def test_a_storage_that_fails_is_not_called_a_damaged_file(
    remote: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    put(f"{remote}/m.pt", saved({"w": torch.rand(100_000)}))
    original = MemoryFileSystem.cat_ranges

    def cat_ranges(self: Any, paths: Any, starts: Any, ends: Any, **options: Any) -> Any:
        if max(stop - start for start, stop in zip(starts, ends, strict=True)) > 200_000:
            raise ConnectionResetError("by peer")
        return original(self, paths, starts, ends, **options)

    monkeypatch.setattr(MemoryFileSystem, "cat_ranges", cat_ranges)
    with pytest.raises(StorageError, match="by peer"):
        tw.load_checkpoint(f"{remote}/m.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_behind_a_url_is_an_error_of_ours(remote: str, zipped: bool) -> None:
    state = OrderedDict(w=torch.arange(2.0), b=torch.arange(3))
    data = saved({"model": state}, zipped)
    for at in range(0, len(data), 13):
        for bad in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
            with contextlib.suppress(WarmStartError):
                checkpoint = tw.load_checkpoint(put(f"{remote}/m.pt", bad))
                assert sum(checkpoint.get_tensor(key).nbytes for key in checkpoint) < len(data)


def test_a_file_that_is_cut_off_is_told(remote: str) -> None:
    data = saved(weights())
    put(f"{remote}/m.pt", data[: len(data) // 2])

    with pytest.raises(CorruptCheckpointError):
        tw.load_checkpoint(f"{remote}/m.pt")


# ---- What the system refuses -------------------------------------------------------------------

_REFUSALS = {
    "no descriptor": (
        OSError(errno.EMFILE, os.strerror(errno.EMFILE)),
        "Too many open files.",
    ),
    "no map": (
        RuntimeError("unable to mmap 64 bytes from file <m.pt>: Cannot allocate memory (12)"),
        "torch is unable to mmap 64 bytes from file <m.pt>: Cannot allocate memory (12). It maps "
        "no file that is larger than memory; a .safetensors may be.",
    ),
    "no descriptor for a map": (
        RuntimeError("unable to open file <m.pt> in read-only mode: Too many open files (24)"),
        "torch is unable to open file <m.pt> in read-only mode: Too many open files (24).",
    ),
}


@pytest.mark.parametrize("refused", _REFUSALS)
def test_a_file_that_the_system_refuses_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    path = tmp_path / "m.pt"
    torch.save(weights(), path)
    error, told = _REFUSALS[refused]

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torch.load", refuse)
    with pytest.raises(StorageError) as raised:
        tw.load_checkpoint(path)
    assert str(raised.value) == f"{path} cannot be read: {told}"
