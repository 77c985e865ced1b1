"""The commands `plan` and `warm-start`: what would be done, and doing it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch_warmstart.api import apply_plan, named_initializers, plan_warm_start
from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.commands.inspect import opening
from torch_warmstart.cli.models import make_model
from torch_warmstart.cli.pages import check_free, write_page
from torch_warmstart.conversion import write_state
from torch_warmstart.errors import SettingsError
from torch_warmstart.planning import NOT_SELECTED
from torch_warmstart.settings import WarmStartSettings, load_rules, read_settings

SELECTED = [".*"]  # without settings: all that the model has, buffers too


def plan(options: argparse.Namespace) -> Answer:
    """Runs `plan`."""
    check_free(options.html, force=options.force)
    made = plan_warm_start(make_model(options.model), settings_of(options))
    states = [(item.state, item.reason) for item in made.items]
    code, missed = _gate(states, options.fail_under)
    return Answer(made, code, _joined(write_page(made, options), missed))


def warm_start(options: argparse.Namespace) -> Answer:
    """Runs `warm-start`: nothing is written without `--apply`."""
    if options.apply and options.out is None:
        raise SettingsError(
            "--apply needs --out FILE: a .safetensors or .pt for the model's state."
        )
    check_free(options.html, force=options.force, result=options.out)
    model = make_model(options.model)
    made = plan_warm_start(model, settings_of(options))
    code, missed = _gate([(item.state, item.reason) for item in made.items], options.fail_under)
    if not options.apply:
        said = "Nothing was written; --apply does what the plan says."
        return Answer(made, code, _joined(write_page(made, options), missed, said))
    if code != OK:
        return Answer(made, code, _joined(missed, "Nothing was written."))
    state, url = model.state_dict(), made.checkpoint.url
    write_state(state, options.out, url, force=options.force, dry_run=True)  # may it be written?
    report = apply_plan(made)
    written = write_state(model.state_dict(), options.out, url, force=options.force)
    return Answer(report, OK, _joined(write_page(report, options), str(written)))


def settings_of(options: argparse.Namespace) -> WarmStartSettings:
    """The settings of a file, with what the command line says instead."""
    said = _said(options)
    if options.settings is None:
        if not options.checkpoint:
            raise SettingsError("Name a checkpoint, or a file that does with --settings.")
        return WarmStartSettings(options.checkpoint, **{"vars_to_warm_start": SELECTED, **said})
    settings = read_settings(options.settings, named_initializers(), options.checkpoint)
    if isinstance(settings, list):
        raise SettingsError(f"{options.settings} is a list of settings; the command takes one.")
    return replace(settings, **said)


def _said(options: argparse.Namespace) -> dict[str, Any]:
    """The fields that the command line names, beside the checkpoint."""
    rules = None if options.rules is None else load_rules(options.rules)
    said = {
        "vars_to_warm_start": getattr(options, "vars", None),
        "on_missing": getattr(options, "on_missing", None),
        "on_mismatch": getattr(options, "on_mismatch", None),
        "var_name_to_prev_var_name": rules,
        **(opening(options) if hasattr(options, "entry") else {}),  # which `convert` has
    }
    return {name: value for name, value in said.items() if value is not None}


def _gate(states: Sequence[tuple[str, str]], least: float | None) -> tuple[int, str]:
    """The exit code for how much is taken of what is selected, and what to say of it."""
    selected = [state for state, reason in states if reason != NOT_SELECTED]
    taken = sum(state != "kept" for state in selected)
    if least is None or taken >= least * len(selected):
        return OK, ""
    part = taken / len(selected)
    return DIFFERENT, (
        f"{taken:,} of {len(selected):,} selected variables are taken from the checkpoint: "
        f"{part:.1%}, and --fail-under asks for {least:.1%}."
    )


def _joined(*lines: str) -> str:
    return "\n".join(line for line in lines if line)
