"""The commands and their arguments. Nothing that needs torch is imported to parse them.

A command is a row of `_COMMANDS`; it is run by `module:function` of `commands`, and its page of
help fits into a screen and ends with an example.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_args

from torch_warmstart import __version__
from torch_warmstart.cli.answer import DIFFERENT, FAILED, OK
from torch_warmstart.suggesting import ASKED_FOR, WRITTEN
from torch_warmstart.values import Fate, OnProblem, Opener, frozen

GROUPS = {"vocab": "compare vocabularies, or make today's of yesterday's"}
_LONGEST_NAME = 14  # columns of a command's name and its indent
_COUNTS_HELP = "Parquet, csv or tsv with the columns entry and count"


class WrongCallError(Exception):
    """A call that no command understands; `str()` is what is wrong with it."""

    code: str = "wrong-call"

    def __init__(self, message: str, usage: str, prog: str) -> None:
        super().__init__(message)
        self.usage: str = usage
        self.prog: str = prog


class Parser(argparse.ArgumentParser):
    """A parser whose errors are exceptions: `--json` wants a document of them."""

    def error(self, message: str) -> NoReturn:
        raise WrongCallError(f"error: {message}", self.format_usage(), self.prog)


@frozen
class Command:
    """One command."""

    name: str
    run: str  # module and function
    about: str  # a line of help
    description: str
    example: str
    add: Callable[[Parser], None]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a call; None: of this process.

    Raises:
        WrongCallError: it is not understood.
    """
    parser = make_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        raise WrongCallError("error: name a command", parser.format_help() + "\n", parser.prog)
    options, left = parser.parse_known_args(words)
    last = getattr(options, "last", "")  # which argparse takes beside the one before it only
    if last and getattr(options, last) is None and len(left) == 1 and left[0][:1] != "-":
        setattr(options, last, left.pop())
    if left:
        raise WrongCallError(
            f"error: unrecognized arguments: {' '.join(left)}",
            f"usage: torch-warmstart {options.command} --help says what there is\n",
            f"{parser.prog} {options.command}",
        )
    return options


def make_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(
        prog="torch-warmstart",
        description="Warm-start PyTorch models from checkpoints of other models.",
        epilog=f"Exit codes: {OK}; {DIFFERENT} where things differ, nothing matched or a threshold "
        f"is missed; {FAILED} for errors. docs/cli.md has more.",
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    groups = {"": commands}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            groups[group] = _add_group(commands, group)
        inner = groups[group].add_parser(
            name,
            help=command.about,
            description=command.description,
            epilog=f"example:\n  torch-warmstart {command.name} {command.example}",
            formatter_class=_Formatter,
        )
        inner.set_defaults(run=command.run, command=command.name)
        command.add(inner)
        inner.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _add_group(commands: Any, group: str) -> Any:
    """The commands of two words that begin with the same one."""
    members = [command for command in COMMANDS if command.name.startswith(group + " ")]
    parser = commands.add_parser(
        group,
        help=GROUPS[group],
        description=f"torch-warmstart {group}: {GROUPS[group]}.",
        epilog=f"example:\n  torch-warmstart {members[0].name} {members[0].example}",
        formatter_class=_Formatter,
    )
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


class _Formatter(argparse.HelpFormatter):
    """Wraps as usual, but leaves the lines of an example as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog)
        self._action_max_length = _LONGEST_NAME  # else the longest command has a line of its own

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example:"):
            return text
        return super()._fill_text(text, width, indent)


# -- commands --------------------------------------------------------------------------------------


def _inspect(parser: Parser) -> None:
    _add_source(parser)
    _add_pattern(parser)
    parser.add_argument(
        "--sort", choices=("name", "size"), default="name", help="by name, or largest first"
    )
    parser.add_argument("--values", metavar="KEY", help="print this tensor's first rows instead")
    parser.add_argument(
        "--rows", metavar="START:STOP", type=_row_range, help="which rows of --values"
    )
    _add_html(parser)


def _plan(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument(
        "checkpoint", metavar="URL", nargs="?", help="what to start from; else the settings say it"
    )
    parser.set_defaults(last="checkpoint")
    parser.add_argument(
        "--settings", metavar="TOML", help="a file that tws.load_settings reads; docs/cli.md"
    )
    parser.add_argument("--rules", metavar="TOML", help="renames, as `suggest` writes them")
    parser.add_argument(
        "--vars",
        metavar="REGEX",
        action="append",
        help="which variables, buffers too; may be repeated; default: as the settings say, or all",
    )
    parser.add_argument(
        "--on-missing", choices=get_args(OnProblem), help="what the checkpoint does not have"
    )
    parser.add_argument("--on-mismatch", choices=get_args(OnProblem), help="what does not fit")
    parser.add_argument(
        "--fail-under",
        metavar="PERCENT",
        type=_percent,
        help="exit with 1 if fewer of the selected variables are taken from the checkpoint",
    )
    _add_html(parser)


def _warm_start(parser: Parser) -> None:
    _plan(parser)
    parser.add_argument(
        "--out", metavar="FILE", help="where the model's state goes: .safetensors or .pt"
    )
    parser.add_argument("--apply", action="store_true", help="do it; without, show the plan")


def _suggest(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("checkpoint", metavar="URL", help="path or URL of a checkpoint")
    _add_opening(parser)
    parser.add_argument("--out", metavar="TOML", help="write the rules into this file")
    parser.add_argument(
        "--min-confidence",
        choices=ASKED_FOR,
        help=f"rules below it are commented out (default: {WRITTEN})",
    )
    _add_html(parser)
    _add_dry_run(parser)


def _convert(parser: Parser) -> None:
    _add_source(parser)
    parser.add_argument("out", metavar="FILE", help="where to: .safetensors or .pt")
    _add_pattern(parser)
    parser.add_argument(
        "--model", metavar="MODEL", help="write its state, warm-started, instead of the tensors"
    )
    parser.add_argument("--settings", metavar="TOML", help="how the model is warm-started")
    parser.add_argument("--rules", metavar="TOML", help="renames for the model")
    _add_force(parser)
    _add_dry_run(parser)


def _diff(parser: Parser) -> None:
    parser.add_argument("old", metavar="OLD", help="path or URL of a checkpoint")
    parser.add_argument("new", metavar="NEW", help="path or URL of another")
    _add_opening(parser)
    parser.add_argument("--stat", action="store_true", help="print only how many tensors differ")
    parser.add_argument(
        "--no-values", dest="values", action="store_false", help="compare names, shapes and dtypes"
    )
    _add_html(parser)


def _verify(parser: Parser) -> None:
    _add_model(parser)
    parser.add_argument("record", metavar="RECORD", help="the file with inputs and outputs")
    parser.add_argument(
        "--checkpoint", metavar="URL", help="what to warm-start it from; without, as it is made"
    )
    parser.add_argument("--settings", metavar="TOML", help="how it is warm-started; docs/cli.md")
    parser.add_argument("--rules", metavar="TOML", help="renames, as `suggest` writes them")
    parser.add_argument("--rtol", type=float, help="largest error allowed; default by dtype")


def _vocab_diff(parser: Parser) -> None:
    parser.add_argument("old", metavar="OLD", help="a vocabulary's file; docs/vocabularies.md")
    parser.add_argument("new", metavar="NEW", help="another")
    _add_reading(parser)
    parser.add_argument("--counts", metavar="FILE", help=f"for the shares; {_COUNTS_HELP}")
    parser.add_argument(
        "--earlier",
        metavar="FILE",
        action="append",
        default=[],
        help="a vocabulary of a day before OLD: what it has is back, not new; may be repeated",
    )
    parser.add_argument(
        "--list",
        dest="fate",
        choices=get_args(Fate)[1:],  # all but "kept"
        help="print these entries instead, one a line",
    )


def _vocab_update(parser: Parser) -> None:
    parser.add_argument("old", metavar="OLD", help="yesterday's vocabulary; docs/vocabularies.md")
    parser.add_argument("counts", metavar="COUNTS", help=f"today's; {_COUNTS_HELP}")
    parser.add_argument(
        "--out", metavar="FILE", required=True, help="where to: .parquet, .tsv, or any other name"
    )
    _add_reading(parser)
    parser.add_argument(
        "--min-count",
        metavar="N",
        type=int,
        default=1,
        help="an entry seen less often today is not admitted (default: 1)",
    )
    parser.add_argument(
        "--expire-after", metavar="DAYS", type=int, help="an entry not seen for longer goes"
    )
    parser.add_argument("--max-size", metavar="ROWS", type=int, help="the most rows there may be")
    parser.add_argument(
        "--today", metavar="DATE", type=_date, help="the counts' day, 2026-01-31; default: UTC's"
    )
    _add_force(parser)
    _add_dry_run(parser)


def _explain(parser: Parser) -> None:
    parser.add_argument("code", metavar="CODE", nargs="?", help="without, all codes are listed")


def _completion(parser: Parser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


COMMANDS: Sequence[Command] = (
    Command(
        "inspect",
        "inspect:inspect",
        "list the tensors of a checkpoint",
        "Lists the tensors of a checkpoint, and what it holds besides: optimizers, vocabularies, "
        "epochs. Reads its index, and no tensor.",
        "model_dir --pattern kernel --sort size",
        _inspect,
    ),
    Command(
        "plan",
        "plan:plan",
        "show what a warm start would do",
        "Shows what a warm start would do to every variable of a model, or every problem it has. "
        "Reads names, shapes and vocabularies, and no tensor.",
        "my_models:make_bert model_dir --settings warmstart.toml",
        _plan,
    ),
    Command(
        "warm-start",
        "plan:warm_start",
        "warm-start a model and save its state",
        "Shows the plan of a warm start; with --apply, does it and writes the model's state.",
        "my_models:make model_dir --out new.pt --apply",
        _warm_start,
    ),
    Command(
        "suggest",
        "suggest:suggest",
        "propose names, and write them as rules",
        "Proposes names in a checkpoint for the variables that find nothing by themselves.",
        "my_models:make_bert model_dir --out rules.toml",
        _suggest,
    ),
    Command(
        "convert",
        "convert:convert",
        "write a checkpoint into another format",
        "Writes a checkpoint's tensors under their own names, or the state of a model that they "
        "are loaded into. The file is there whole or not at all.",
        "model_dir model.safetensors",
        _convert,
    ),
    Command(
        "diff",
        "diff:diff",
        "compare two checkpoints",
        "Compares two checkpoints: tensors added, removed and renamed, shapes, dtypes, values with "
        "norms. Exits with 1 if they differ.",
        "yesterday.pt today.pt --stat",
        _diff,
    ),
    Command(
        "verify",
        "verify:verify",
        "compare a ported model with recorded outputs",
        "Makes a model, warm-starts it, runs it on recorded inputs, and compares its outputs with "
        "the recorded ones. RECORD is a file of arrays (.npz, .safetensors, ...) named inputs/NAME "
        "(or inputs/0, inputs/1, ... for positional arguments), outputs/NAME (or outputs/0, ..., "
        "or outputs for the only one), and layers/MODULE for a comparison layer by layer. Exits "
        "with 1 if they differ.",
        "my_models:make_bert recorded.npz --checkpoint model_dir",
        _verify,
    ),
    Command(
        "vocab diff",
        "vocab:diff",
        "compare two vocabularies",
        "Compares two vocabularies: how many entries stay in their rows, move, return, are new or "
        "dropped, and how much they weigh. Exits with 1 if they differ.",
        "monday.txt tuesday.txt --list new",
        _vocab_diff,
    ),
    Command(
        "vocab update",
        "vocab:update",
        "make today's vocabulary from yesterday's and counts",
        "Makes today's vocabulary: entries that stay keep their rows, new ones take freed rows, "
        "then the end.",
        "old.tsv counts.csv --min-count 5 --out new.tsv",
        _vocab_update,
    ),
    Command(
        "explain",
        "explain:explain",
        "say what the code of an error or a note means",
        "Says when something is said, and what to do. A code is at the end of a warning, and in "
        "the JSON of a plan.",
        "shape-mismatch",
        _explain,
    ),
    Command(
        "completion",
        "completion:completion",
        "print the completion of a shell",
        "Prints a script that completes commands and options in a shell.",
        "bash >> ~/.bash_completion",
        _completion,
    ),
)


# -- arguments of several commands -----------------------------------------------------------------


def _add_model(parser: Parser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="MODULE:CALLABLE that makes the model, or a Hugging Face directory",
    )


def _add_source(parser: Parser) -> None:
    parser.add_argument("url", metavar="URL", help="path or URL of a checkpoint or its directory")
    _add_opening(parser)


def _add_opening(parser: Parser) -> None:
    parser.add_argument("--format", help="what it is, instead of looking at its content")
    parser.add_argument("--entry", help="which mapping of a file that holds several: ema/model")
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_const",
        const=False,
        help="check no checksums",
    )
    parser.add_argument(
        "--storage-option",
        metavar="KEY=VALUE",
        action="append",
        type=_storage_option,
        default=[],
        help="passed to the filesystem of a URL; values may be JSON; may be repeated",
    )
    parser.add_argument(
        "--filesystem",
        choices=get_args(Opener),
        help="what reads gs:// and the like (default: auto)",
    )


def _add_pattern(parser: Parser) -> None:
    parser.add_argument(
        "--pattern",
        metavar="REGEX",
        action="append",
        type=_regex,
        default=[],
        help="only keys in which this is found; may be repeated, for keys that match any",
    )


def _add_reading(parser: Parser) -> None:
    parser.add_argument("--column", metavar="NAME", help="the column of a table; by number from 0")
    parser.add_argument("--key", metavar="NAME", help="the layer or table of a file with several")
    parser.add_argument(
        "--format", help="what a file is, instead of by its content: lines, csv, tsv, jsonl, ..."
    )


def _add_html(parser: Parser) -> None:
    parser.add_argument("--html", metavar="FILE", help="write it as a page to sort and filter, too")
    _add_force(parser)


def _add_force(parser: Parser) -> None:
    parser.add_argument("--force", action="store_true", help="replace a file that is there")


def _add_dry_run(parser: Parser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="write nothing, say what")


def _percent(text: str) -> float:
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage such as 90")
    return number / 100


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2026-01-31") from error


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
