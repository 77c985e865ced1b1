"""Vocabularies of which a server refuses the file: its own error, and one of a plan's problems."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from recording_server import Server, serving
from torch import nn

import torch_warmstart as tws


@pytest.fixture
def web() -> Iterator[Server]:
    pytest.importorskip("aiohttp")
    with serving() as server:
        server.files["/vocab.txt"] = b"a\nb\nc\n"
        yield server


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_a_refusal_is_not_the_files_fault(web: Server, status: int) -> None:
    web.status = status
    with pytest.raises(tws.StorageError, match=rf"^{web.url}/vocab.txt .*{status}"):
        tws.Vocabulary.load(f"{web.url}/vocab.txt")


def test_what_is_not_there_is_the_callers_word(web: Server) -> None:
    with pytest.raises(tws.VocabularyError, match="cannot be read"):
        tws.Vocabulary.load(f"{web.url}/other.txt")


def test_a_plan_says_it_among_all_its_problems(web: Server) -> None:
    web.status = 503
    model = nn.ModuleDict({"table": nn.Embedding(3, 2), "head": nn.Linear(2, 1, bias=False)})
    info = tws.VocabInfo(f"{web.url}/vocab.txt", old_vocab=["a", "b", "c"])
    settings = tws.WarmStartSettings(
        {"table.weight": torch.ones(3, 2)}, var_name_to_vocab_info={"table.weight": info}
    )
    with pytest.raises(tws.PlanError, match="has 2 problems") as raised:
        tws.warm_start(model, settings)
    assert [(p.code, p.subject) for p in raised.value.problems] == [
        ("vocabulary", "table.weight"),
        ("not-in-checkpoint", "head.weight"),
    ]
    assert "503" in str(raised.value)
