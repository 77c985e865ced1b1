"""What changes beside a warm start while it runs: its files, and who listens to its progress."""

from __future__ import annotations

import io
import os
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import WarmStartSettings
from torch_warmstart.execution import commit


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(2, 2)
        self.two = nn.Linear(2, 2)
        self.three = nn.Linear(2, 2)


def _file(tmp_path, kind):
    state = {k: torch.ones_like(v) for k, v in Net().state_dict().items()}
    path = tmp_path / f"model.{kind}"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    elif kind == "pt":
        torch.save(state, path)
    else:
        np.savez(path, **{k: v.numpy() for k, v in state.items()})
    return path


def _disturb(monkeypatch, act, after):
    """Calls something when so many tensors have been copied."""
    run, count = commit.Copy.run, [0]

    def disturbed(self):
        run(self)
        count[0] += 1
        if count[0] == after:
            act()

    monkeypatch.setattr(commit.Copy, "run", disturbed)


def _edit(path, *, restore=False):
    found = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\1" * 8)
    if restore:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.fixture
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the system has none; where it has, who edits a file waits until it is over."""
    monkeypatch.setattr("torch_warmstart.storage.leases.Leases._take", lambda *_: None)


@pytest.mark.usefixtures("no_leases")
@pytest.mark.parametrize("kind", ["safetensors", "pt", "npz"])
@pytest.mark.parametrize("restore", [False, True])
def test_a_file_that_is_edited_while_it_is_copied_is_never_silent(
    tmp_path, monkeypatch, kind, restore
):
    path = _file(tmp_path, kind)
    monkeypatch.setattr(commit, "_CHECKED_BYTES", 1)  # a look after each step
    plan = tws.plan_warm_start(Net(), str(path))
    _disturb(monkeypatch, lambda: _edit(path, restore=restore), after=3)
    with pytest.raises(tws.PartialWriteError, match="changed while it was copied") as error:
        tws.apply_plan(plan)
    names = [item.name for item in plan.items]
    assert [*error.value.written, *error.value.not_written] == names
    assert len(error.value.written) == 2  # the third was being copied
    assert "2 hold their new values and 4 do not" in str(error.value)


@pytest.mark.usefixtures("no_leases")
def test_a_file_that_is_edited_before_the_first_write_changes_nothing(tmp_path, monkeypatch):
    path = _file(tmp_path, "safetensors")
    model = Net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.register_load_state_dict_pre_hook(lambda *_: _edit(path))
    with pytest.raises(tws.CorruptCheckpointError, match="has been changed"):
        tws.warm_start(model, str(path))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("how", ["link", "chmod", "replace"])
def test_what_does_not_change_the_bytes_that_are_mapped_is_no_edit(tmp_path, monkeypatch, how):
    path = _file(tmp_path, "safetensors")
    plan = tws.plan_warm_start(model := Net(), str(path))

    def act():
        if how == "link":
            os.link(path, tmp_path / "another")
        elif how == "chmod":
            os.chmod(path, 0o444)
        else:
            (tmp_path / "new").write_bytes(b"new")
            os.replace(tmp_path / "new", path)

    _disturb(monkeypatch, act, after=3)
    tws.apply_plan(plan)
    assert all(bool((v == 1).all()) for v in model.parameters())


def test_a_tensor_in_memory_that_is_changed_while_it_is_copied_is_noticed(monkeypatch):
    source = {k: torch.ones_like(v) for k, v in Net().state_dict().items()}
    plan = tws.plan_warm_start(Net(), source)
    _disturb(monkeypatch, source["three.bias"].zero_, after=2)
    with pytest.raises(tws.PartialWriteError, match="A tensor of the source was changed"):
        tws.apply_plan(plan)


def test_a_step_that_always_fails_says_what_is_written_and_what_is_not(monkeypatch):
    model = Net()
    source = {k: torch.ones_like(v) for k, v in model.state_dict().items()}
    run = commit.Copy.run

    def failing(self):
        if self.items[0].name == "two.bias":
            raise RuntimeError("out of order")
        run(self)

    monkeypatch.setattr(commit.Copy, "run", failing)
    with pytest.raises(tws.PartialWriteError, match="out of order") as error:
        tws.warm_start(model, source)
    assert isinstance(error.value.__cause__, RuntimeError)
    assert error.value.not_written[0] in ("one.weight", "two.bias")


def test_a_step_that_fails_once_is_done_again_and_it_is_said(monkeypatch):
    model = Net()
    source = {k: torch.ones_like(v) for k, v in model.state_dict().items()}

    def fail():
        raise RuntimeError("a moment please")

    _disturb(monkeypatch, fail, after=2)
    with pytest.raises(tws.WarmStartError, match="a moment please.*is complete"):
        tws.warm_start(model, source)
    assert all(bool((v == 1).all()) for v in model.parameters())


# -- initialisers ----------------------------------------------------------------------------------


def _with_initializer(function, model=None):
    model = model or nn.Embedding(3, 2)
    info = {"weight": tws.VocabInfo(["a", "b", "x"], -1, 0, ["b"], backup_initializer=function)}
    source = {"weight": torch.ones(1, 2)}
    return model, source, WarmStartSettings(source, ".*", info)


@pytest.mark.parametrize(
    "misdeed",
    [
        lambda model, source, t: t.resize_(1),
        lambda model, source, t: t.set_(torch.zeros(4)),
        lambda model, source, t: model.weight.data.fill_(9),
        lambda model, source, t: setattr(model, "weight", nn.Parameter(torch.zeros(3, 2))),
        lambda model, source, t: setattr(model.weight, "data", torch.zeros(3, 2)),
        lambda model, source, t: source["weight"].fill_(9),
        lambda model, source, t: {}["no"],
    ],
    ids=["resizes", "swaps", "writes", "replaces", "moves", "source", "raises"],
)
def test_an_initialiser_that_does_what_it_must_not_changes_nothing(misdeed):
    def function(tensor):
        misdeed(model, source, tensor)

    model, source, settings = _with_initializer(function)
    weight, before = model.weight, model.weight.detach().clone()
    with pytest.raises(tws.WarmStartError):
        tws.warm_start(model, settings)
    assert model.weight is weight
    assert torch.equal(model.weight, before)


# -- progress --------------------------------------------------------------------------------------


class _Broken(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")

    def flush(self):
        raise OSError(28, "No space left on device")


def _closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [_Broken, _closed, lambda: None], ids=["full", "closed", "none"])
@pytest.mark.parametrize("progress", [True, None])
def test_a_stderr_that_cannot_be_written_to_stops_nothing(monkeypatch, stream, progress):
    monkeypatch.setattr(sys, "stderr", stream())
    model = nn.Linear(2, 2)
    tws.warm_start(model, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, progress=progress)
    monkeypatch.undo()
    assert model.bias.tolist() == [1, 1]


def test_names_that_look_like_markup_are_shown_as_they_are(capsys):
    model = nn.ModuleDict({"[bold]": nn.Linear(1, 1)})
    source = {"[bold].weight": torch.ones(1, 1), "[bold].bias": torch.ones(1)}
    tws.warm_start(model, source, progress=True)
    assert model["[bold]"].bias.tolist() == [1]
    assert "[bold].bias" in capsys.readouterr().err
