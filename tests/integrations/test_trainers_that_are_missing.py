"""Without a trainer's library its module says what to install, and nothing else of it is loaded."""

from __future__ import annotations

import importlib
import sys

import pytest

import torch_warmstart as tws


@pytest.mark.parametrize(
    ("library", "install"),
    [
        ("lightning", r"torch-warmstart\[lightning\]"),
        ("transformers", r"torch-warmstart\[transformers\]"),
        ("accelerate", "pip install accelerate"),
    ],
)
def test_the_error_says_what_to_install(monkeypatch, library, install):
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    module = f"torch_warmstart.integrations.{library}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(tws.MissingDependencyError, match=install):
        importlib.import_module(module)
