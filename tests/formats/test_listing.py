"""What is listed of a checkpoint besides its tensors."""

from __future__ import annotations

import torch

import torch_warmstart as tws
from torch_warmstart.formats import list_tensors


class _Table:
    keys = (b"a", b"b", b"c")


class _WithMore:
    """A checkpoint that holds vocabularies and keyed tables, too."""

    def __init__(self, checkpoint: tws.Checkpoint) -> None:
        self._checkpoint = checkpoint

    def __getattr__(self, name):
        return getattr(self._checkpoint, name)

    def __iter__(self):
        return iter(self._checkpoint)

    def vocabularies(self):
        return {"genres": range(5)}

    def tables(self):
        return {"users": _Table}


def test_vocabularies_and_tables_are_listed_where_a_checkpoint_has_them():
    listing = list_tensors(_WithMore(tws.load_checkpoint({"w": torch.ones(2)})))
    assert listing.to_dict()["vocabularies"] == {"genres": 5}
    assert listing.to_dict()["tables"] == {"users": 3}
    text = str(listing)
    assert "Vocabulary genres: 5 rows" in text
    assert "Table users: 3 entries" in text


def test_what_is_no_tensor_is_told_in_a_few_words():
    state = {
        "model": {"w": torch.ones(2)},
        "epoch": 3,
        "name": "x" * 500,
        "best": torch.ones(3),
        "args": {"lr": 0.1},
        "other": object(),
        "digits": 10**5000,
    }
    found = tws.load_checkpoint(state).besides()
    assert found["epoch"] == "3"
    assert len(found["name"]) <= 60
    assert found["best"] == "float32 [3]"
    assert found["args"] == "dict of 1"
    assert found["other"] == "object"
    assert found["digits"] == "a number"
    assert "model" not in found


def test_many_things_besides_are_counted():
    state = {"model": {"w": torch.ones(2)}, **{f"thing{n}": n for n in range(100)}}
    lines = str(list_tensors(tws.load_checkpoint(state))).splitlines()
    assert sum(line.startswith("Besides ") for line in lines) == 41
    assert lines[-1] == "Besides 60 more"


def test_what_a_module_keeps_beside_its_tensors_is_told():
    found = tws.load_checkpoint({"w": torch.ones(2), "m._extra_state": {"a": 1}}).besides()
    assert "m._extra_state" in found
    assert "w" not in found


def test_slots_of_an_object_graph_are_listed():
    graph = tws.load_checkpoint({"w": torch.ones(2)})
    graph.graph_optimizers = lambda: [
        type("Graph", (), {"slots": {"w": {"m": "w/m", "v": "w/v"}}})  # as a TensorFlow file has it
    ]
    (optimizer,) = list_tensors(graph).optimizers
    assert (optimizer["parameters"], optimizer["slots"]) == (1, ["m", "v"])
