"""A first layer whose columns would be other features', as names show; how segments are told."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torch_warmstart as tws

OLD = [f"C{number}" for number in range(1, 6)]


class Ranker(nn.Module):
    def __init__(
        self, features: list[str], dim: int = 4, dense: int = 2, kind: type = nn.Embedding
    ) -> None:
        super().__init__()
        self.tables = nn.ModuleDict({name: kind(3, dim) for name in features})
        self.first = nn.Linear(dim * len(features) + dense, 8)
        self.head = nn.Linear(8, 1)


def without(features: list[str]) -> str:
    return "".join(rf"(?!tables\.{name}\.)" for name in features) + ".*"


def said(model: nn.Module, saved: Any, *args: Any) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = tws.plan_warm_start(model, tws.WarmStartSettings(saved, *args))
    return [note.text for note in plan.notes if note.code == "columns-of-others"]


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_one_feature_new_and_one_gone_is_a_warning(kind: type) -> None:
    new = ["C1", "C2", "C4", "C5", "C6"]
    model, saved = Ranker(new, kind=kind), Ranker(OLD, kind=kind).state_dict()
    (text,) = said(model, saved, without(["C6"]))
    assert text.startswith("first.weight takes its columns by position")
    assert "'C6' is new, and 'C3' of the checkpoint has gone, as wide" in text
    assert "{'first.weight': SegmentInfo(" in text
    kept = tws.WarmStartSettings(saved, on_missing="keep")
    with pytest.warns(tws.WarmStartWarning, match="columns-of-others"):
        tws.warm_start(model, kept)


def test_names_that_tensorflow_makes_show_it_too() -> None:
    saved = {f"in/{name}_embedding/embedding_weights": torch.ones(3, 4) for name in OLD}
    saved |= {f"in/{name}_embedding/embedding_weights/Adagrad": torch.ones(3, 4) for name in OLD}
    saved |= {"first.weight": torch.ones(8, 22), "first.bias": torch.ones(8)}
    saved |= {"head.weight": torch.ones(1, 8), "head.bias": torch.ones(1)}
    rules = {
        f"tables.{name}.weight": f"in/{name}_embedding/embedding_weights"
        for name in ["C1", "C2", "C4", "C5"]
    }
    model = Ranker(["C1", "C2", "C4", "C5", "C6"])
    (text,) = said(model, saved, without(["C6"]), None, rules)
    assert "'C3' of the checkpoint has gone" in text


def test_nothing_is_said_where_nothing_shows_it() -> None:
    saved = Ranker(OLD).state_dict()
    assert not said(Ranker(OLD), saved)
    swapped = ["C1", "C2", "C4", "C5", "C6"]
    segments = tws.SegmentInfo(
        {**dict.fromkeys(swapped, 4), "dense": 2}, {**dict.fromkeys(OLD, 4), "dense": 2}
    )
    infos = {"first.weight": segments}
    assert not said(Ranker(swapped), saved, without(["C6"]), infos)
    # A model that sums its features has a first layer of one feature's width.
    small = nn.ModuleDict(
        {"tables": Ranker(swapped).tables, "first": nn.Linear(4, 8), "head": nn.Linear(8, 1)}
    )
    of_small = {**small.state_dict(), "tables.C3.weight": torch.ones(3, 4)}
    del of_small["tables.C6.weight"]
    assert not said(small, of_small, without(["C6"]))


def test_a_feature_that_is_only_new_or_only_gone_has_other_sizes() -> None:
    saved = Ranker(OLD).state_dict()
    with pytest.raises(tws.PlanError, match="first.weight has shape"):
        said(Ranker([*OLD, "C6"]), saved, without(["C6"]))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (
            {"a": 1, "b": 2},
            "first.weight has size 4 along axis 1, but new_segments has 2 features of together "
            "3 columns. Is a feature missing",
        ),
        ({"a": 1, "b": 2, "c": 2}, "has 3 features of together 5 columns"),
    ],
)
def test_segments_of_another_size_are_told_in_their_own_words(new: Any, message: str) -> None:
    model = nn.ModuleDict({"first": nn.Linear(4, 2, bias=False)})
    infos = {"first.weight": tws.SegmentInfo(new, {"a": 1, "b": 2})}
    settings = tws.WarmStartSettings({"first.weight": torch.ones(2, 3)}, ".*", infos)
    with pytest.raises(tws.PlanError) as raised:
        tws.plan_warm_start(model, settings)
    assert message in str(raised.value)
    assert "VocabInfo" not in str(raised.value)


def test_another_axis_is_told_by_what_the_info_is_for() -> None:
    model = nn.ModuleDict({"first": nn.Linear(3, 5, bias=False)})
    saved = {"first.weight": torch.ones(2, 3)}
    for info, words in (
        (tws.SegmentInfo({"a": 3}, {"a": 3}), "axis 1, which the features are along"),
        (tws.ClipOrPad(1), "axis 1, which is clipped or padded"),
    ):
        settings = tws.WarmStartSettings(saved, ".*", {"first.weight": info})
        with pytest.raises(tws.PlanError, match=words):
            tws.plan_warm_start(model, settings)


def test_a_tokenizer_beside_a_file_is_named_and_not_taken(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    safetensors = pytest.importorskip("safetensors.torch")
    model = tokenizers.models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]")
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"vocab_size": 3}')
    path = str(tmp_path / "model.safetensors")
    safetensors.save_file({"weight": torch.rand(3, 2)}, path)
    settings = tws.WarmStartSettings(path, ".*", {"weight": tws.VocabInfo(["b", "c"])})
    with pytest.raises(tws.PlanError) as raised:
        tws.plan_warm_start(nn.Embedding(2, 2), settings)
    text = str(raised.value)
    assert "Beside it lies a tokenizer. If that is its own, say so" in text
    assert f"old_vocab={str(tmp_path)!r}" in text
    said_so = tws.VocabInfo(["b", "c"], old_vocab=str(tmp_path))
    for source, info in ((path, said_so), (str(tmp_path), tws.VocabInfo(["b", "c"]))):
        table = nn.Embedding(2, 2)
        tws.warm_start(table, tws.WarmStartSettings(source, ".*", {"weight": info}))
        saved = tws.load_variable(path, "weight")
        assert torch.equal(table.weight[0], saved[1])
