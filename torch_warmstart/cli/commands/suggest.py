"""The command `suggest`: names for what finds nothing by itself, and a file of rules."""

from __future__ import annotations

import argparse

from torch_warmstart.api import suggest_names
from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.commands.inspect import opening
from torch_warmstart.cli.commands.plan import SELECTED
from torch_warmstart.cli.models import make_model
from torch_warmstart.cli.pages import check_free, write_page
from torch_warmstart.errors import plural
from torch_warmstart.settings import WarmStartSettings
from torch_warmstart.suggesting import CONFIDENCES, WRITTEN, Suggestions, save_rules


def suggest(options: argparse.Namespace) -> Answer:
    """Runs the command; exits with 1 if something is missing and nothing could be suggested."""
    check_free(options.out, force=options.force)
    check_free(options.html, force=options.force, result=options.out)
    settings = WarmStartSettings(options.checkpoint, SELECTED, **opening(options))
    found = suggest_names(make_model(options.model), settings)
    nothing = bool(found.items) and not any(item.names for item in found.items)
    said = "" if options.dry_run else write_page(found, options)
    if options.out is not None and not nothing:
        said += "\n" * bool(said) + _write(found, options)
    return Answer(found, DIFFERENT if nothing else OK, said)


def _write(found: Suggestions, options: argparse.Namespace) -> str:
    if options.dry_run:
        return f"Would write {options.out}"
    wanted = options.min_confidence or WRITTEN
    save_rules(options.out, found, min_confidence=wanted)
    least = CONFIDENCES.index(wanted)
    unsure = sum(CONFIDENCES.index(item.confidence) > least for item in found.items if item.names)
    said = f"Wrote {options.out}: look at it, and pass it as --rules"
    if not unsure:
        return said
    return (
        f"{said}. Below {wanted} confidence and so commented out: "
        f"{plural(unsure, 'variable')}; --min-confidence low takes them."
    )
