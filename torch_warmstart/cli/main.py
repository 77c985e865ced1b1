"""The parser, the exit codes, and the only module that prints.

What a command needs is imported when it runs: `--help`, `--version` and a wrong call are answered
before torch could be imported. Output is plain text without colours, so that it may be piped
anywhere.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from torch_warmstart import __version__
from torch_warmstart.errors import WarmStartError

_OK, _FAILED = 0, 1  # argparse exits with 2 where it is called wrongly


def run() -> NoReturn:
    """The console script: a process of its own."""
    gc.disable()  # of a short run's 100,000 small objects, none is garbage: a third of the time
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, or 1 with a message on stderr."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return _OK
    except (WarmStartError, OSError) as error:
        print(f"torch-warmstart: {error}", file=sys.stderr)
        return _FAILED


def _inspect(options: argparse.Namespace) -> int:
    from torch_warmstart.cli.inspect import inspect

    print(inspect(options))
    return _OK


def _verify(options: argparse.Namespace) -> int:
    from torch_warmstart.cli.verify import verify

    check = verify(options)
    print(check)
    return _OK if check.ok else _FAILED


# -- arguments -------------------------------------------------------------------------------------

_VERIFY = """\
Makes a model, warm-starts it from a checkpoint, runs it on recorded inputs, and compares its
outputs with the recorded ones. RECORD is a file of arrays (.npz, .safetensors, ...) named
inputs/NAME (or inputs/0, inputs/1, ... for positional arguments), outputs/NAME (or outputs/0, ...,
or outputs for the only one), and layers/MODULE for a comparison layer by layer. Floating inputs are
cast to the model's dtype."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torch-warmstart", description="Warm-start PyTorch models from checkpoints."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_verify(commands)
    return parser


def _add_inspect(commands: Any) -> None:
    parser = commands.add_parser(
        "inspect",
        help="list the tensors of a checkpoint",
        description="Lists the tensors of a checkpoint; reads its index, and no tensor.",
    )
    parser.set_defaults(run=_inspect)
    _add_source(parser)
    parser.add_argument(
        "--pattern",
        metavar="REGEX",
        action="append",
        type=_regex,
        default=[],
        help="only keys in which this is found; may be repeated, for keys that match any of them",
    )
    parser.add_argument("--sort", choices=("name", "size"), default="name")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--values", metavar="KEY", help="print this tensor's first rows instead")
    parser.add_argument(
        "--rows", metavar="START:STOP", type=_row_range, help="which rows of --values"
    )


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", help="path or URL of a checkpoint or its directory")
    parser.add_argument("--format", help="what it is, instead of looking at its content")
    parser.add_argument("--entry", help="which mapping of a file that holds several: ema/model")
    parser.add_argument(
        "--no-verify", dest="verify", action="store_false", help="check no checksums of --values"
    )
    parser.add_argument(
        "--storage-option",
        metavar="KEY=VALUE",
        action="append",
        type=_storage_option,
        default=[],
        help="passed to the filesystem of a URL; values may be JSON (true, 5); may be repeated",
    )
    parser.add_argument("--filesystem", choices=("auto", "fsspec", "gfile"), default="auto")


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify", help="compare a ported model with recorded outputs", description=_VERIFY
    )
    parser.set_defaults(run=_verify)
    parser.add_argument(
        "model", metavar="MODULE:CALLABLE", help="what makes the model, such as my_models:make_bert"
    )
    parser.add_argument("record", metavar="RECORD", help="the file with inputs and outputs")
    parser.add_argument(
        "--checkpoint", metavar="URL", help="what to warm-start it from; without, as it is made"
    )
    parser.add_argument("--rules", metavar="FILE", help="renames, as save_rules writes them")
    parser.add_argument("--rtol", type=float, help="largest error allowed; default by dtype")


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def _row_range(text: str) -> slice:
    match = re.fullmatch(r"(\d{0,18}):(\d{0,18})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no range such as 0:5")
    start, stop = (int(bound) if bound else None for bound in match.groups())
    return slice(start, stop)


def _storage_option(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
