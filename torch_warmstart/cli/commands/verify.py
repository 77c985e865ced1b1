"""The command `torch-warmstart verify`: a ported model against a record of the original."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from torch_warmstart.api import load_checkpoint, warm_start
from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.commands.plan import settings_of
from torch_warmstart.cli.models import make_model, raised
from torch_warmstart.errors import SettingsError, WarmStartError
from torch_warmstart.formats import Checkpoint
from torch_warmstart.proof import verify_port


def verify(options: argparse.Namespace) -> Answer:
    """Runs the command; exits with 1 if the model departs from the record."""
    model = make_model(options.model)
    said: list[str] = []
    if options.checkpoint is not None or options.settings is not None:
        report = warm_start(model, settings_of(options))
        said = [f"Warning: {note}" for note in report.notes if note.severity == "warning"]
    elif options.rules is not None:
        raise SettingsError("--rules are for what --checkpoint names, which is not given.")
    with load_checkpoint(options.record) as record:
        inputs, outputs, layers = (_section(record, name) for name in _SECTIONS)
    try:
        check = verify_port(model, inputs, outputs, layers=layers, rtol=options.rtol)
    except WarmStartError:
        raise
    except Exception as error:
        raise raised(f"{options.model}, run on {options.record},", error) from error
    return Answer(check, OK if check.ok else DIFFERENT, "\n".join(said))


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
