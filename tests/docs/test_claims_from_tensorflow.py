"""What docs/from_tensorflow.md puts beside TensorFlow's calls does what they do."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import torch
from torch import nn

import torch_warmstart as tws

PAGE = (Path(__file__).parents[2] / "docs/from_tensorflow.md").read_text()


def test_the_truncated_normal_is_cut_at_two_deviations():
    said = re.search(r"truncated_normal_initializer\(stddev=0\.1\)` \| `(.*?)`", PAGE)
    assert said is not None
    fill = eval(said[1], {"partial": partial, "nn": nn})
    torch.manual_seed(0)
    drawn = fill(torch.empty(100_000))
    assert 0.199 < float(drawn.abs().max()) <= 0.2


def test_what_is_restored_in_part_has_its_buffers_too():
    said = re.search(r"expect_partial\(\)` \| `(.*?)`", PAGE)
    assert said is not None
    old = {"0.running_mean": torch.ones(2), "0.weight": torch.full((2,), 3.0)}
    model = nn.Sequential(nn.BatchNorm1d(2))
    tws.warm_start(model, eval(said[1], {"tws": tws, "path": old}))
    assert model[0].running_mean.tolist() == [1.0, 1.0]
    assert model[0].weight.tolist() == [3.0, 3.0]
