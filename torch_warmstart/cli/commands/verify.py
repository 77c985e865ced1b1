"""The command `torch-warmstart verify`: a ported model against a record of the original."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from torch_warmstart.api import load_checkpoint, warm_start
from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.models import make_model
from torch_warmstart.errors import SettingsError
from torch_warmstart.formats import Checkpoint
from torch_warmstart.proof import verify_port
from torch_warmstart.settings import WarmStartSettings, load_rules


def verify(options: argparse.Namespace) -> Answer:
    """Runs the command; exits with 1 if the model departs from the record."""
    model = make_model(options.model)
    if options.checkpoint is not None:
        warm_start(model, WarmStartSettings(options.checkpoint, [".*"], **_rules(options.rules)))
    with load_checkpoint(options.record) as record:
        inputs, outputs, layers = (_section(record, name) for name in _SECTIONS)
    check = verify_port(model, inputs, outputs, layers=layers, rtol=options.rtol)
    return Answer(check, OK if check.ok else DIFFERENT)


def _rules(path: str | None) -> dict[str, Any]:
    """What a rules file says, as fields of the settings."""
    if path is None:
        return {}
    rules = load_rules(path)
    return {"var_name_to_prev_var_name": rules, "var_name_to_layout": rules.layouts}


_SECTIONS = ("inputs", "outputs", "layers")


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
