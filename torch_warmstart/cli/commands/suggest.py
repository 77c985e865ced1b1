"""The command `suggest`: names for what finds nothing by itself, and a file of rules."""

from __future__ import annotations

import argparse

from torch_warmstart.api import suggest_names
from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.models import make_model
from torch_warmstart.cli.pages import check_free, write_page
from torch_warmstart.suggesting import save_rules


def suggest(options: argparse.Namespace) -> Answer:
    """Runs the command; exits with 1 if something is missing and nothing could be suggested."""
    check_free(options.out, force=options.force)
    found = suggest_names(make_model(options.model), options.checkpoint)
    nothing = bool(found.items) and not any(item.names for item in found.items)
    said = "" if options.dry_run else write_page(found, options)
    if options.out is not None and not nothing:
        said += "\n" * bool(said) + _write(found, options)
    return Answer(found, DIFFERENT if nothing else OK, said)


def _write(found: object, options: argparse.Namespace) -> str:
    if options.dry_run:
        return f"Would write {options.out}"
    save_rules(options.out, found, min_confidence=options.min_confidence)  # type: ignore[arg-type]
    return f"Wrote {options.out}: look at it, and pass it as --rules"
