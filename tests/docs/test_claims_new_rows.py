"""What docs/new_rows.md shows, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init

DOC = (Path(__file__).parents[2] / "docs" / "new_rows.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", DOC, re.DOTALL)


class Model(nn.Module):
    def __init__(self, rows):
        super().__init__()
        self.embed = nn.Embedding(rows, 4)
        self.head = nn.Linear(4, rows)


def test_the_first_example(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    old, new = ["rés", "eau", "x"], ["rés", "eau", "réseau", "??"]
    Path("old.txt").write_text("\n".join(old) + "\n", encoding="utf-8")
    Path("new.txt").write_text("\n".join(new) + "\n", encoding="utf-8")
    pieces = {"réseau": ["rés", "eau"]}
    scope = {"url": Model(3).state_dict(), "model": Model(4), "old_tokenizer": pieces}
    exec(BLOCKS[0].replace("50_000", "4"), scope)
    assert capsys.readouterr().out == "1 subword, 1 mean + noise\nréseau = 0.50 rés + 0.50 eau\n"


def test_the_example_of_a_function():
    old, new = list(range(5)), [10, *range(1, 5), 20, 30]
    scope = {"tws": tws, "torch": torch, "VocabInfo": tws.VocabInfo, "init": init}
    scope |= {"old_ids": old, "new_ids": new, "renamed": {10: 0}}
    exec(BLOCKS[1].replace("9_000", "7"), scope)
    values, model = torch.randn(5, 3), nn.Embedding(7, 3)
    settings = tws.WarmStartSettings(
        {"weight": values}, var_name_to_vocab_info={"weight": scope["info"]}
    )
    report = tws.warm_start(model, settings)
    assert report["weight"].new_rows.answered == (("alias", 1), ("nearest_id", 2))
    assert torch.equal(model.weight[5:], values[[4, 4]])


def test_the_example_of_a_mixture():
    old, new = ["song", "beat", "tune"], ["remix", "tune", "else"]
    scope = {"tws": tws, "torch": torch, "VocabInfo": tws.VocabInfo, "init": init}
    exec(BLOCKS[2], scope := scope | {"old_songs": old, "new_songs": new})
    head = nn.Linear(4, 3)
    values = {"weight": torch.randn(3, 4), "bias": torch.randn(3)}
    infos = dict.fromkeys(values, scope["info"])
    report = tws.warm_start(head, tws.WarmStartSettings(values, var_name_to_vocab_info=infos))
    assert report["weight"].new_rows.answered == (("of_parents", 1), ("mean", 1))
    for name, value in head.named_parameters():
        torch.testing.assert_close(value[0], (values[name][0] + values[name][1]) / 2)
        torch.testing.assert_close(value[2], values[name].mean(0))


@pytest.mark.parametrize("name", sorted(set(init.__all__) - {"noise"}))
def test_the_table_lists_every_initialiser(name):
    assert f"\n| `{name}(" in DOC


def test_the_settings_that_stand_for_papers_are_taken():
    table = (["a"], torch.ones(1, 2))
    for settings in re.findall(r"`(k=None, .*?)`", DOC, re.DOTALL):
        exec(f"init.similar(table, {settings})", {"init": init, "table": table})
    assert len(re.findall(r"`(k=None, .*?)`", DOC, re.DOTALL)) == 2
