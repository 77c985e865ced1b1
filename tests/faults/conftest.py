"""What an injected fault may leave behind in torch is put right for the tests that follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def gradients_as_before() -> Iterator[None]:
    """An interrupt that strikes where `no_grad` is left keeps it from being left."""
    before = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(before)
