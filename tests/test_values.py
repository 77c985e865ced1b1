"""`frozen` makes what `dataclass(frozen=True)` makes, as far as anybody can see."""

import copy
import inspect
import pickle
from dataclasses import (
    KW_ONLY,
    FrozenInstanceError,
    asdict,
    dataclass,
    field,
    fields,
    is_dataclass,
    replace,
)
from functools import cached_property
from typing import ClassVar

import pytest

from torch_warmstart.values import frozen


@frozen
class Box:
    """Where something lies."""

    kind: ClassVar[str] = "box"
    offset: int
    size: int = 1
    names: list[str] = field(default_factory=list)
    told: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Standard:
    """The same, by the standard library."""

    kind: ClassVar[str] = "box"
    offset: int
    size: int = 1
    names: list[str] = field(default_factory=list)
    told: str = field(default="", compare=False, repr=False)


@frozen
class WithKeywords:
    first: int
    _: KW_ONLY
    last: int = 2


@frozen(slots=False)
class Cached:
    number: int

    @cached_property
    def doubled(self):
        return [self.number * 2]


@frozen(eq=False, repr=False)
class Itself:
    number: int

    def __repr__(self):
        return "mine"


@frozen
class Checked:
    number: int

    def __post_init__(self):
        if self.number < 0:
            raise ValueError("below zero")
        object.__setattr__(self, "number", self.number + 1)


@frozen
class More(Box):
    extra: int = 7


@frozen
class Nothing:
    pass


CALLS = [
    ((1,), {}),
    ((1, 2), {}),
    ((1, 2, ["a"], "t"), {}),
    ((1,), {"names": ["b"]}),
    ((), {"offset": 1, "told": "x", "size": 5}),
]
WRONG = [
    ((), {}),
    ((), {"size": 1}),
    ((1, 2, [], "", 5), {}),
    ((1,), {"offset": 1}),
    ((1, 2), {"size": 3}),
    ((1,), {"width": 3}),
    ((1, 2, [], ""), {"width": 3}),
    ((1, 2, [], ""), {"told": ""}),
]


@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_it_is_made_and_shown_as_a_dataclass_is(args, kwargs):
    ours, standard = Box(*args, **kwargs), Standard(*args, **kwargs)
    assert asdict(ours) == asdict(standard)
    assert repr(ours) == repr(standard).replace("Standard", "Box")
    assert ours == Box(*args, **kwargs)
    assert ours.kind == "box"


@pytest.mark.parametrize(("args", "kwargs"), WRONG)
def test_wrong_arguments_are_refused_as_a_dataclass_refuses_them(args, kwargs):
    with pytest.raises(TypeError):
        Standard(*args, **kwargs)
    with pytest.raises(TypeError, match=r"^Box\(\) "):
        Box(*args, **kwargs)


def test_every_value_has_a_list_of_its_own():
    assert Box(1).names is not Box(1).names


def test_fields_cannot_be_set_or_deleted():
    box = Box(1)
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'size'"):
        box.size = 2
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'size'"):
        del box.size
    with pytest.raises(FrozenInstanceError):
        box.other = 2
    with pytest.raises(FrozenInstanceError):
        Cached(1).number = 2


def test_equality_is_by_the_fields_that_are_compared_and_by_class():
    assert Box(1, told="a") == Box(1, told="b")
    assert Box(1) != Box(2)
    assert Box(1) != Standard(1)
    assert Box(1) != More(1)
    assert More(1) == More(1, extra=7)
    assert Checked(1) == Checked(1)
    assert hash(Checked(1)) == hash(Checked(1))
    assert len({Checked(1), Checked(1), Checked(2)}) == 2
    assert Nothing() == Nothing()
    assert hash(Nothing()) == hash(Nothing())
    with pytest.raises(TypeError, match="unhashable"):
        hash(Box(1))  # a list is one of its fields
    assert Itself(1) != Itself(1)


def test_methods_of_its_own_go_first():
    assert repr(Itself(1)) == "mine"


def test_what_comes_after_the_fields_is_run():
    assert Checked(1).number == 2
    with pytest.raises(ValueError, match="below zero"):
        Checked(-1)


def test_dataclasses_know_it():
    assert is_dataclass(Box)
    assert [each.name for each in fields(Box)] == ["offset", "size", "names", "told"]
    assert replace(Box(1, 2), size=3) == Box(1, 3)
    assert Box.__match_args__ == ("offset", "size", "names", "told")
    assert asdict(More(1))["extra"] == 7


def test_fields_by_keyword_only():
    assert WithKeywords(1, last=3).last == 3
    assert WithKeywords(1) == WithKeywords(first=1, last=2)
    with pytest.raises(TypeError, match="takes 1 positional arguments, but 2 were given"):
        WithKeywords(1, 3)


@pytest.mark.parametrize("value", [Box(1, 2, ["a"], "t"), More(3), Cached(4), Nothing()])
@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_it_can_be_copied_and_pickled(value, again):
    assert again(value) == value


def test_a_cached_property_is_kept():
    value = Cached(2)
    assert value.doubled is value.doubled
    assert value.doubled == [4]


def test_its_signature_is_that_of_its_fields():
    ours, standard = inspect.signature(Box), inspect.signature(Standard)
    assert list(ours.parameters) == list(standard.parameters)
    kinds = [each.kind for each in standard.parameters.values()]
    assert [each.kind for each in ours.parameters.values()] == kinds
    assert ours.parameters["size"].default == 1
    assert ours.parameters["offset"].default is inspect.Parameter.empty
    assert inspect.signature(WithKeywords).parameters["last"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_class_with_slots_has_no_dict():
    assert not hasattr(Box(1), "__dict__")
    assert hasattr(Cached(1), "__dict__")
