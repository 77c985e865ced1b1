"""Old rows in a file that somebody may cut are copied by a call that notices, never looked at."""

from __future__ import annotations

import pytest
import torch
from rows_helpers import info_of, letters, table
from safetensors.torch import save_file
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init
from torch_warmstart.execution.gathering import guarded
from torch_warmstart.execution.watching import Watch

OLD = letters(40)


@pytest.mark.parametrize("initializer", [init.mean(), init.subword({"new": ["t7", "t30"]})])
def test_what_new_rows_are_made_of_is_copied_in_the_guarded_way(tmp_path, monkeypatch, initializer):
    path = str(tmp_path / "m.safetensors")
    save_file({"weight": table(40, 6)}, path)
    info = info_of(["t3", "new"], OLD, initializer)
    settings = tws.WarmStartSettings(path, var_name_to_vocab_info={"weight": info})
    safe = nn.Embedding(2, 6)
    tws.warm_start(safe, settings)
    taken, original = [], guarded.copied

    def counted(data, what):
        taken.append(data.size)
        return original(data, what)

    monkeypatch.setattr(guarded, "copied", counted)
    monkeypatch.setattr(Watch, "is_safe", lambda self, keys: False)
    model = nn.Embedding(2, 6)
    tws.warm_start(model, settings)
    assert torch.equal(model.weight, safe.weight)
    assert len(taken) >= 2  # for the new row, and when rows are moved
