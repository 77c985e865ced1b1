"""What docs/live_models.md shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import torch

import torch_warmstart as tws

_PAGE = Path(__file__).parents[2] / "docs" / "live_models.md"


def test_the_example_of_the_page_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 1
    exec(compile(blocks[0], str(_PAGE), "exec"), {})
    assert "2 variables: 2 remapped" in capsys.readouterr().out


def test_padding_may_be_of_entries_too() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(3, 8))
    new = tws.Vocabulary.load(["b", "new"]).padded_to(64)
    report = tws.change_vocabulary(
        model, {"0.weight": tws.VocabInfo(new, old_vocab=["a", "b", "c"])}
    )
    assert model[0].num_embeddings == 64
    assert (report["0.weight"].rows.copied, report["0.weight"].rows.vacant) == (1, 62)
