"""What of a variable is here: all of it, in one box."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_warmstart.computing.boxes import Box
from torch_warmstart.model.sharding import parts_of
from torch_warmstart.model.variables import model_variables


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((3, 4), Box((0, 0), (3, 4))),
        ((5,), Box((0,), (5,))),
        ((), Box((), ())),
        ((0, 2), Box((0, 0), (0, 2))),
    ],
)
def test_a_whole_tensor_is_one_box(shape, box):
    assert [part.box for part in parts_of(torch.empty(shape))] == [box]
    assert box.numel == torch.empty(shape).numel()


def test_each_variable_has_its_box():
    boxes = {v.name: v.boxes for v in model_variables(nn.Linear(2, 3))}
    assert boxes == {"weight": (Box((0, 0), (3, 2)),), "bias": (Box((0,), (3,)),)}
