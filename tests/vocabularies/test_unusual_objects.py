"""Vocabularies in objects that are nearly what they should be: as they say, or refused."""

from __future__ import annotations

import collections
import enum

import numpy as np
import pytest
import torch
from torch.masked import masked_tensor

import torch_warmstart as tws

load = tws.Vocabulary.load


class Loud(str):
    """A text that says of itself what it is not."""

    __slots__ = ()

    def __len__(self):
        return 1

    def encode(self, *_, **__):
        return b"other"


class Drained(collections.UserList):
    """A sequence that gives its entries once."""

    def __iter__(self):
        while self.data:
            yield self.data.pop(0)


class Longer(collections.UserList):
    """A sequence that gives more than it says."""

    def __len__(self):
        return 1


class City(str, enum.Enum):
    """Members are texts."""

    ROME = "rome"
    OSLO = "oslo"


@pytest.mark.parametrize("texts", [["abc", "d"], ["abé", "d"]], ids=["ascii", "others"])
def test_a_text_is_what_it_holds(texts):
    assert list(load([Loud(text) for text in texts]).entries) == [t.encode() for t in texts]


def test_a_member_of_an_enum_is_its_text():
    assert list(load(list(City)).entries) == [b"rome", b"oslo"]
    with pytest.raises(tws.SettingsError, match=r"not a Enum\w+\. .*pass list\(\.\.\.\) of it"):
        load(City)


@pytest.mark.parametrize("entries", [["a", "é"], [b"a", b"b"], [7, 3], ["a", None]], ids=str)
def test_a_sequence_is_asked_once(entries):
    assert list(load(Drained(entries)).entries) == list(load(entries).entries)


@pytest.mark.parametrize("entries", [["a", "b"], [7, 3]], ids=str)
def test_a_sequence_that_gives_more_than_it_says_is_refused(entries):
    with pytest.raises(tws.VocabularyError, match="of length 1 gives 2 entries"):
        load(Longer(entries))


@pytest.mark.parametrize("dtype", [torch.uint4, torch.int1, torch.bits8], ids=str)
def test_a_dtype_that_torch_has_no_values_of_is_refused(dtype):
    with pytest.raises(tws.VocabularyError, match=f"a vector of integer ids, not {dtype}"):
        load(torch.empty(3, dtype=dtype))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_a_mask_leaves_out_is_no_entry():
    ids, mask = torch.tensor([5, 6, 7]), torch.tensor([True, False, True])
    with pytest.raises(tws.VocabularyError, match="MaskedTensor is more than its values"):
        load(masked_tensor(ids, mask))


def test_a_class_of_tensors_without_a_will_of_its_own_is_plain():
    class Tagged(torch.Tensor):
        """As users derive them, to carry a name along."""

    ids = torch.tensor([5, 6, 7]).as_subclass(Tagged)
    assert load(ids).rows([7, 1]).tolist() == [2, -1]
    assert type(load(ids).listed.ids) is torch.Tensor


@pytest.mark.parametrize("written", [False, True], ids=["array", "file"])
def test_a_number_that_no_character_has_is_damage(written, tmp_path):
    array = np.array([[97], [0x110000]], dtype=np.uint32).view("U1")[:, 0]
    path = tmp_path / "entries.npy"
    np.save(path, array)
    told = "entries.npy holds numbers that no" if written else "array of length 2 holds numbers"
    with pytest.raises(tws.VocabularyError, match=told):
        load(path if written else array)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), int), np.zeros(3), np.zeros(0, int)], ids=["2d", "floats", "empty"]
)
def test_a_file_of_an_array_that_is_none_is_named(array, tmp_path):
    np.save(tmp_path / "entries.npy", array)
    with pytest.raises(tws.VocabularyError, match=r"entries\.npy"):
        load(tmp_path / "entries.npy")


class Tensor:
    """As TensorFlow's are: what their values are only `numpy` says."""

    def numpy(self):
        return np.array([b"a"])

    def __iter__(self):
        return iter([Tensor()])


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ({"a", "b"}, "has no order, and rows have one: pass its entries as a list"),
        (frozenset("ab"), "has no order"),
        ({"a": 0}.keys(), r"pass list\(\.\.\.\) of it"),
        (map(str, [1]), r"pass list\(\.\.\.\) of it"),
        (b"words.txt", "A path is a str"),
        (Tensor(), r"pass its \.numpy\(\)"),
    ],
    ids=["set", "frozenset", "keys", "map", "bytes", "tensor"],
)
def test_what_is_nearly_a_vocabulary_says_what_to_pass(source, told):
    with pytest.raises(tws.SettingsError, match=f"A vocabulary is a path or URL.* {told}"):
        load(source)
