"""How TensorFlow keeps query, key, value and output of multi-head attention."""

from __future__ import annotations

from torch import nn

from torch_warmstart.layouts import Form

_ATTENTION_REFUSAL = "torch packs query, key and value into one tensor, TensorFlow keeps three"


def attention_forms(module: nn.Module, leaf: str) -> tuple[Form, ...]:
    """The ways in which TensorFlow may keep a tensor of an attention layer."""
    return (Form(((leaf,),), refusal=f"nn.{type(module).__name__}.{leaf}: {_ATTENTION_REFUSAL}"),)
