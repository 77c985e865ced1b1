"""Small frozen classes: what the shared methods and a compiled `__init__` make is the same."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, field, replace

import pytest

from torch_warmstart.values.frozen_classes import _OFTEN, frozen


@frozen
class Box:
    offset: int
    size: int = 1
    tags: list[str] = field(default_factory=list)
    unit: str = field(default="row", kw_only=True)


@frozen(slots=False)
class Checked:
    size: int

    def __post_init__(self):
        if self.size < 0:
            raise ValueError(self.size)


@frozen
class Wider(Box):
    height: int = 0


def _make_often(cls, *args):
    for _ in range(_OFTEN):
        cls(*args)


def _seen(cls, *args, **kwargs):
    """What a call makes, or of what kind it raises."""
    try:
        return cls(*args, **kwargs)
    except Exception as error:
        return type(error)


_CALLS = {
    "one": ((3,), {}),
    "all": ((3, 4, ["a"]), {"unit": "byte"}),
    "by name": ((), {"size": 2, "offset": 1}),
    "none": ((), {}),
    "too many": ((1, 2, [], "row", 5, 6), {}),
    "unknown": ((1,), {"colour": 2}),
    "twice": ((1,), {"offset": 2}),
}


@pytest.mark.parametrize("cls", [Box, Wider])
def test_a_class_that_is_called_often_makes_what_it_made_before(cls):
    before = [_seen(cls, *args, **kwargs) for args, kwargs in _CALLS.values()]
    _make_often(cls, 1)
    after = [_seen(cls, *args, **kwargs) for args, kwargs in _CALLS.values()]
    assert vars(cls)["__init__"].__code__.co_name == "__init__"  # it has one of its own
    assert after == before
    assert [repr(one) for one in after] == [repr(one) for one in before]
    with pytest.raises(FrozenInstanceError):
        cls(1).size = 2


def test_mutable_defaults_are_made_anew_each_time():
    _make_often(Box, 1)
    assert Box(1).tags is not Box(1).tags


def test_a_check_goes_on_behind_a_compiled_init():
    _make_often(Checked, 1)
    with pytest.raises(ValueError, match="-1"):
        Checked(-1)


def test_copies_are_equal_after_many_calls():
    _make_often(Wider, 1)
    one = Wider(1, 2, ["a"], 3, unit="byte")
    assert copy.copy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one
    assert replace(one, height=4) == Wider(1, 2, ["a"], 4, unit="byte")
