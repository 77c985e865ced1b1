"""The command `torch-warmstart verify`: a ported model against a record of the original."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import torch

from torch_warmstart.api import load_checkpoint, warm_start
from torch_warmstart.errors import SettingsError
from torch_warmstart.formats import Checkpoint
from torch_warmstart.proof import PortCheck, verify_port
from torch_warmstart.settings import WarmStartSettings, load_rules


def verify(options: argparse.Namespace) -> PortCheck:
    """Runs the command; the result is what is to be printed."""
    model = make_model(options.model)
    if options.checkpoint is not None:
        warm_start(model, WarmStartSettings(options.checkpoint, [".*"], **_rules(options.rules)))
    with load_checkpoint(options.record) as record:
        inputs, outputs, layers = (_section(record, name) for name in _SECTIONS)
    return verify_port(model, inputs, outputs, layers=layers, rtol=options.rtol)


def _rules(path: str | None) -> dict[str, Any]:
    """What a rules file says, as fields of the settings."""
    if path is None:
        return {}
    rules = load_rules(path)
    return {"var_name_to_prev_var_name": rules, "var_name_to_layout": rules.layouts}


_SECTIONS = ("inputs", "outputs", "layers")


def make_model(where: str) -> torch.nn.Module:
    """What a `module:callable` returns, a module in the working directory included."""
    module_name, _, callable_name = where.partition(":")
    if not module_name or not callable_name:
        raise SettingsError(f"The model is given as MODULE:CALLABLE, not {where!r}.")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        make = getattr(importlib.import_module(module_name), callable_name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"There is no {where!r}: {error}.") from error
    model = make()
    if not isinstance(model, torch.nn.Module):
        raise SettingsError(f"{where} makes a {type(model).__name__}, not a torch.nn.Module.")
    return model


def _section(record: Checkpoint, name: str) -> Any:
    """The arrays below a name, as verify_port takes them."""
    prefix = name + "/"
    found = {k.removeprefix(prefix): record.get_tensor(k) for k in record if k.startswith(prefix)}
    if name in record:
        return record.get_tensor(name)
    if not found and name != "layers":
        raise SettingsError(
            f"{record.url} has nothing named {name} or {prefix}...; it has {', '.join(record)}."
        )
    return found if name == "layers" else _positional(found)


def _positional(found: Mapping[str, Any]) -> Any:
    """A list, if the names are its indices."""
    if set(found) == {str(at) for at in range(len(found))}:
        return [found[str(at)] for at in range(len(found))]
    return found
