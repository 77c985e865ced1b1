"""Objects of others in a torch file are inert, and the tensors beside them are read."""

from __future__ import annotations

import argparse
import collections
import datetime
import functools
import pathlib
import sys
import threading
import types
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart.errors import UnsupportedError

STATE = {"weight": torch.arange(4.0).reshape(2, 2), "bias": torch.ones(2)}
CALLED: list[Any] = []


class Runs:
    """What a pickle asks to be called is never called."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def tell(*arguments):
    CALLED.append(arguments)


@pytest.fixture
def foreign(monkeypatch):
    """An object of a class that is gone when the file is read."""

    def make(module, name, value=None):
        holder = types.ModuleType(module)
        kind = type(name, (), {"__module__": module})
        setattr(holder, name, kind)
        monkeypatch.setitem(sys.modules, module, holder)
        made = kind()
        made.value = value
        return made

    return make


def read(path, **more):
    with tws.load_checkpoint(path, **more) as checkpoint:
        return {key: checkpoint.get_tensor(key) for key in checkpoint}


def is_state(found):
    return found.keys() == STATE.keys() and all(torch.equal(found[k], STATE[k]) for k in STATE)


OTHERS = {
    "arguments": argparse.Namespace(lr=1, out=pathlib.PurePosixPath("a")),
    "time": datetime.datetime(2020, 1, 1),
    "counts": collections.defaultdict(list, {"a": [1]}),
    "queue": collections.deque([1, 2], maxlen=3),
    "number": np.float64(0.5),
    "array": np.ones(3),
    "call": functools.partial(print, "no"),
    "function": Runs(tell, "called"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_lies_beside_the_weights_does_not_keep_them(tmp_path, name):
    torch.save({"state_dict": STATE, "epoch": 3, name: OTHERS[name]}, tmp_path / "m.pt")
    assert is_state(read(tmp_path / "m.pt"))
    assert is_state(read(tmp_path / "m.pt", entry="state_dict"))
    assert CALLED == []


def test_classes_of_frameworks_are_not_imported(tmp_path, foreign, monkeypatch):
    hub = {"log_scalars": {"loss": foreign("not_there_logging", "HistoryBuffer", np.zeros((3, 2)))}}
    torch.save({"meta": {"epoch": 1}, "state_dict": STATE, "message_hub": hub}, tmp_path / "m.pt")
    monkeypatch.delitem(sys.modules, "not_there_logging")
    assert is_state(read(tmp_path / "m.pt"))
    assert "not_there_logging" not in sys.modules


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.register_buffer("gone", torch.ones(1), persistent=False)
        self.tied = self.inner[0]


@pytest.mark.parametrize("wrap", [lambda m: m, lambda m: {"model": m, "epoch": 1}])
def test_a_pickled_module_is_what_its_state_dict_would_be(tmp_path, wrap):
    module = Own()
    torch.save(wrap(module), tmp_path / "m.pt")
    found, state = read(tmp_path / "m.pt"), module.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "i8", "u1", "b1"])
def test_arrays_of_numpy_are_tensors(tmp_path, dtype):
    values = np.arange(6).reshape(2, 3).astype(dtype)
    state = {"w": values, "e": np.zeros((0, 3), dtype), "turned": np.asfortranarray(values)}
    torch.save({"params": state}, tmp_path / "m.pt")
    found = read(tmp_path / "m.pt")
    assert np.array_equal(found["turned"].numpy(), values)
    assert found["w"].numpy().dtype == values.dtype
    assert np.array_equal(found["w"].numpy(), values)
    assert found["e"].shape == (0, 3)


def test_an_optimizer_whose_options_are_numbers_of_numpy_goes_on(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=np.float64(0.1))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "m.pt")
    new = nn.Linear(2, 2)
    into = torch.optim.Adam(new.parameters(), lr=0.1)
    tws.warm_start(new, tmp_path / "m.pt", optimizer=into)
    average = optimizer.state[model.weight]["exp_avg"]
    assert torch.equal(into.state[new.weight]["exp_avg"], average)


def test_a_pickled_optimizer_is_what_its_state_dict_would_be(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"net": model, "optimizer": optimizer}, tmp_path / "m.pt")
    new = nn.Linear(2, 2)
    into = torch.optim.Adam(new.parameters())
    tws.warm_start(new, tmp_path / "m.pt", optimizer=into)
    for ours, theirs in zip(new.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
        for name, value in optimizer.state[theirs].items():
            assert torch.equal(into.state[ours][name], value)


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "name"), [("torchao", "Quantised"), ("mine", "Weight")])
def test_what_may_have_been_a_tensor_is_refused_by_name(tmp_path, foreign, module, name):
    held = torch.ones(2) if module == "mine" else None
    state = {**STATE, "other.weight": foreign(module, name, held)}
    torch.save({"model": state}, tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match=rf"it asks for {module}\.{name}\."):
        tws.load_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [(eval, ("CALLED.append(1)",)), (exec, ("CALLED.append(1)",)), (open, ("ran", "w")),
     (__import__, ("this",)), (compile, ("1", "", "eval"))],
    ids=str,
)  # fmt: skip
def test_a_file_that_names_a_program_is_refused(tmp_path, monkeypatch, function, arguments):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": STATE, "x": Runs(function, *arguments)}, "m.pt")
    with pytest.raises(UnsupportedError, match="could run code"):
        tws.load_checkpoint("m.pt")
    assert not (tmp_path / "ran").exists()
    assert CALLED == []


class Settings(dict):
    """A dict of one's own, of which the pickle sets items, as Lightning's."""


class Rows(list):
    pass


def test_dicts_and_lists_of_classes_of_others_are_plain_ones(tmp_path):
    others = {"hyper_parameters": Settings(a=1, b=Settings(c=2)), "rows": Rows([1, 2])}
    torch.save({"state_dict": STATE, **others}, tmp_path / "m.pt")
    assert is_state(read(tmp_path / "m.pt"))
    torch.save({"state_dict": Settings(STATE), **others}, tmp_path / "m.pt")
    assert is_state(read(tmp_path / "m.pt"))


class Remembers(Settings):
    def __init__(self, **entries):
        super().__init__(**entries)
        self.more = 1


def test_what_is_asked_to_do_more_than_to_be_there_is_refused_as_before(tmp_path):
    torch.save({"model": STATE, "x": Remembers(a=1)}, tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match="Remembers"):
        tws.load_checkpoint(tmp_path / "m.pt")


def test_very_many_names_are_refused(tmp_path, foreign):
    torch.save({"model": STATE, "x": [foreign(f"m{n}", "X") for n in range(65)]}, tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match=r"it asks for m\d+\.X"):
        tws.load_checkpoint(tmp_path / "m.pt")


def _nested(depth, name, leaf=True):
    module = nn.Module()
    if leaf:
        module.weight = nn.Parameter(torch.ones(1))
    for _ in range(depth):
        outer = nn.Module()
        outer._modules = {f"{name}{n}": module for n in range(2)}
        module = outer
    return module


@pytest.mark.parametrize(
    ("depth", "name", "leaf"), [(18, "a", True), (12, "a" * 1000, True), (60, "a", False)]
)
def test_a_pickled_module_without_end_is_refused(tmp_path, depth, name, leaf):
    """Twice the same module in each: a few bytes that stand for very many names, or long ones."""
    torch.save({"model": _nested(depth, name, leaf)}, tmp_path / "m.pt")
    with pytest.raises(UnsupportedError):
        tws.load_checkpoint(tmp_path / "m.pt")


def test_a_pickled_module_in_itself_ends(tmp_path):
    module = nn.Linear(2, 2)
    module._modules["again"] = module
    torch.save({"model": module}, tmp_path / "m.pt")
    assert read(tmp_path / "m.pt").keys() == {"weight", "bias"}


def test_nothing_stays_allowed_and_threads_do_not_mind(tmp_path):
    torch.save({"model": STATE, "x": argparse.Namespace()}, tmp_path / "m.pt")
    failed = []

    def open_it():
        try:
            for _ in range(20):
                assert is_state(read(tmp_path / "m.pt"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    allowed = torch.serialization.get_safe_globals()
    assert "StandIn" not in {getattr(one, "__name__", "") for one in allowed}


def test_a_pickle_that_torch_cannot_follow_says_where_not_what_to_switch_off(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N0.")
        archive.writestr("a/version", "3")
    with pytest.raises(tws.CorruptCheckpointError, match="Unsupported operand 48") as caught:
        tws.load_checkpoint(tmp_path / "m.pt")
    assert "weights_only" not in str(caught.value)


class _Holder:
    def __init__(self, held):
        self.held = held


@pytest.mark.parametrize(
    "held",
    [np.ones(2), torch.ones(2).untyped_storage(), {torch.ones(2): 1}, frozenset([torch.ones(1)])],
    ids=["array", "storage", "key", "frozenset"],
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,)], ids=["alone", "in a tuple"])
def test_what_may_have_been_a_tensor_is_never_left_out(tmp_path, held, wrap):
    torch.save({"w": torch.ones(1), "x": wrap(_Holder(held))}, tmp_path / "m.pt")
    with pytest.raises(tws.UnsupportedError, match="_Holder|frozenset"):
        tws.load_checkpoint(tmp_path / "m.pt")


def test_nothing_else_is_taken_for_a_model_that_cannot_be_read(tmp_path):
    tensors = {"w": torch.ones(2)}
    torch.save({"model": _Holder(torch.ones(2)), "ema": tensors}, tmp_path / "m.pt")
    with pytest.raises(tws.UnsupportedError, match="_Holder"):
        tws.load_checkpoint(tmp_path / "m.pt")
    assert list(tws.load_checkpoint(tmp_path / "m.pt", entry="ema")) == ["w"]


class _Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.body = torch.nn.Linear(2, 1), _Own()


class _Own(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(2, 2)

    def __getstate__(self):
        return (self.__dict__.copy(),)


def test_a_part_of_a_module_that_keeps_its_tensors_otherwise_is_refused(tmp_path):
    torch.save(_Outer(), tmp_path / "m.pt")
    with pytest.raises(tws.UnsupportedError, match="whose part 'body' keeps its tensors"):
        tws.load_checkpoint(tmp_path / "m.pt")


def test_one_array_in_many_places_is_one(tmp_path):
    array = np.ones(1 << 16, np.float32)
    torch.save({"w": [array] * 500, "x": torch.ones(1)}, tmp_path / "m.pt")
    assert "x" in tws.load_checkpoint(tmp_path / "m.pt")


def test_what_lies_beside_is_called_as_it_is_in_the_file(tmp_path):
    where = tmp_path / "m.pt"
    state = {"w": torch.ones(2)}
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1), "of": datetime.date.max}, where)
    with tws.load_checkpoint(where) as checkpoint:
        assert checkpoint.besides() == {"args": "Namespace", "of": "date"}


def test_where_nothing_is_read_it_is_said_what_is_not(tmp_path, foreign):
    """It was said that the file holds no tensor."""
    held = {"weight": foreign("not_there_arrays", "Quantised", torch.ones(2)), "epoch": 1}
    torch.save(held, tmp_path / "m.pt")
    with pytest.raises(UnsupportedError, match=r"it asks for not_there_arrays\.Quantised"):
        tws.load_checkpoint(tmp_path / "m.pt")
    torch.save({"a": STATE, "b": STATE, **held}, tmp_path / "m.pt")
    with pytest.raises(tws.SettingsError, match="holds tensors in several entries"):
        tws.load_checkpoint(tmp_path / "m.pt")
