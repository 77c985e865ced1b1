"""The command `diff`: what differs between two checkpoints."""

from __future__ import annotations

import argparse

from torch_warmstart.api import diff as diff_checkpoints
from torch_warmstart.api import load_checkpoint
from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.commands.inspect import opening
from torch_warmstart.cli.pages import check_free, write_page


def diff(options: argparse.Namespace) -> Answer:
    """Runs the command; exits with 1 if anything differs."""
    check_free(options.html, force=options.force)
    how = opening(options)
    with load_checkpoint(options.old, **how) as old, load_checkpoint(options.new, **how) as new:
        found = diff_checkpoints(old, new, values=options.values)
    code = DIFFERENT if found else OK
    text = found.stat if options.stat else None
    return Answer(found, code, write_page(found, options), text=text)
