"""How TensorFlow keeps the gates of recurrent layers."""

from __future__ import annotations

from torch import nn

from torch_warmstart.layouts import Form

_GATES_REFUSAL = "torch and TensorFlow order the gates of recurrent cells differently"


def recurrent_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which TensorFlow may keep a tensor of a recurrent layer or cell."""
    return (Form(((leaf,),), refusal=f"nn.{type(module).__name__}.{leaf}: {_GATES_REFUSAL}"),)
