"""What the tests of the functions with TensorFlow's names share."""

from __future__ import annotations

import contextlib
import re

import pytest
import torch
from bundle_writer import BundleEntry, DType

from torch_warmstart import SettingsError


@contextlib.contextmanager
def says(text, error=SettingsError):
    """Expects an error whose message is exactly this text."""
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        yield


def entry(name, tensor, **places):
    return BundleEntry(name, DType.FLOAT, tuple(tensor.shape), tensor.numpy().tobytes(), **places)


def seeded(seed):
    return torch.Generator().manual_seed(seed)
