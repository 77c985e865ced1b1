"""The command `convert`: a checkpoint, or a model that it is loaded into, in another format."""

from __future__ import annotations

import argparse

from torch_warmstart.api import convert as convert_model
from torch_warmstart.api import load_checkpoint
from torch_warmstart.cli.answer import DIFFERENT, OK, Answer
from torch_warmstart.cli.commands.inspect import matching, no_match, opening
from torch_warmstart.cli.commands.plan import settings_of
from torch_warmstart.cli.models import make_model
from torch_warmstart.conversion import Conversion, convert_checkpoint
from torch_warmstart.errors import SettingsError


def convert(options: argparse.Namespace) -> Answer:
    """Runs the command."""
    written = {"force": options.force, "dry_run": options.dry_run}
    if options.model is not None:
        if options.pattern:
            raise SettingsError("--pattern chooses tensors of a checkpoint, not of a --model.")
        options.checkpoint = options.url
        model, settings = make_model(options.model), settings_of(options)
        return Answer(convert_model(None, options.out, model=model, settings=settings, **written))
    if options.settings is not None or options.rules is not None:
        raise SettingsError("--settings and --rules are for a --model.")
    with load_checkpoint(options.url, **opening(options)) as checkpoint:
        keys = matching(checkpoint, options.pattern)
        if keys is not None and not keys:
            said = no_match(checkpoint, options.pattern)
            nothing = Conversion(options.out, checkpoint.url, (), 0, {}, written=False)
            return Answer("", DIFFERENT, said, nothing.to_dict())
        done = convert_checkpoint(checkpoint, options.out, keys=keys, **written)
    return Answer(done, OK)
