"""What sees torch's operations does without its compiler, which ends a process with TensorFlow."""

from __future__ import annotations

import subprocess
import sys

import torch

from torch_warmstart.computing import Mode

PROGRAM = """\
import sys
import torch
import torch_warmstart as tws
from torch import nn

class Filled(nn.Linear):
    def _load_from_state_dict(self, state, prefix, *args):
        with torch.no_grad():
            self.bias.fill_(7)

with torch.device("meta"):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
plain = nn.Sequential(nn.Linear(3, 3), Filled(3, 3))
state = {"0.weight": torch.ones(3, 3), "0.bias": torch.ones(3)}
for each in model, plain:
    tws.warm_start(each, tws.WarmStartSettings(state, on_missing="keep"))
print(plain[1].bias.mean().item(), "torch._dynamo" in sys.modules)
"""


def test_models_on_meta_and_those_that_load_themselves_do_without_the_compiler() -> None:
    command = [sys.executable, "-c", PROGRAM]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert run.stdout.split() == ["7.0", "False"], run.stderr


class Counting(Mode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


def test_what_is_compiled_is_seen_too() -> None:
    doubled = torch.compile(lambda one: one.mul(2), backend="eager")
    with Counting() as mode:
        result = doubled(torch.ones(2))
    assert result.tolist() == [2, 2]
    assert any("mul" in each for each in mode.seen)
