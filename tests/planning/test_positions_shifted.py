"""Positions that a model counts from its padding row's number, as RoBERTa does."""

from __future__ import annotations

import warnings

import pytest
from torch import nn

import torch_warmstart as tws

OLD = ["<s>", "<pad>", "</s>", "a", "b"]


def _model(padding: int) -> nn.ModuleDict:
    tables = {
        "word_embeddings": nn.Embedding(5, 2, padding_idx=padding),
        "position_embeddings": nn.Embedding(8, 2, padding_idx=padding),
    }
    return nn.ModuleDict(tables)


def _settings(new: list[str], **more: str) -> tws.WarmStartSettings:
    infos = {"word_embeddings.weight": tws.VocabInfo(new, old_vocab=OLD)}
    return tws.WarmStartSettings(_model(1).state_dict(), ".*", infos, **more)


def test_another_padding_row_is_warned_of() -> None:
    new = ["<pad>", "a", "c", "<s>", "</s>"]
    with pytest.warns(tws.WarmStartWarning, match="is 0 in word_embeddings.weight and was 1"):
        report = tws.warm_start(_model(0), _settings(new))
    (note,) = (note for note in report.notes if note.code == "positions-shifted")
    assert note.subject == "position_embeddings.weight"


@pytest.mark.parametrize(
    ("padding", "new"),
    [(1, ["a", "<pad>", "c", "<s>", "</s>"]), (0, ["<new>", "a", "c", "<s>", "</s>"])],
)
def test_the_same_row_or_one_that_is_new_is_not(padding: int, new: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tws.warm_start(_model(padding), _settings(new))
