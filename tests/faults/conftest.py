"""What an injected fault may leave behind in torch is put right for the tests that follow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from torch_warmstart.execution.mixing import later


@pytest.fixture(autouse=True)
def gradients_as_before() -> Iterator[None]:
    """An interrupt that strikes where `no_grad` is left keeps it from being left."""
    before = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(before)


@pytest.fixture(autouse=True)
def few_rows_may_be_summed_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "WORTH_BYTES", 0)
