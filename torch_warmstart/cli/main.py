"""Runs a command, and is the only module that prints.

Results go to stdout, all else to stderr. What a command needs is imported when it runs: `--help`,
`--version` and a wrong call are answered before torch could be imported.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from torch_warmstart.cli.answer import FAILED, OK, Answer
from torch_warmstart.cli.arguments import make_parser
from torch_warmstart.errors import PlanError, WarmStartError, WarmStartWarning

VERSION = 1  # of the documents that `--json` prints
_INTERRUPTED = 130  # as shells have it
_MOST_COLOURED = 3_000  # lines; rich takes a millisecond for one


def run() -> NoReturn:
    """The console script: a process of its own."""
    gc.disable()  # of a short run's 100,000 small objects, none is garbage: a third of the time
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0; 1 for a difference; 2 with a message on stderr."""
    if sys.stdout is None:  # the caller has closed it: `>&-`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    options = make_parser().parse_args(arguments)
    try:
        answer = _run(options)
        _print(answer, as_json=options.json)
        sys.stdout.flush()
        return answer.code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return OK
    except KeyboardInterrupt:
        print("torch-warmstart: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except (WarmStartError, OSError) as error:
        if options.json:
            print(json.dumps(_error_document(error), indent=1))
        print(f"torch-warmstart: {error}", file=sys.stderr)
        return FAILED


def _run(options: Any) -> Answer:
    module, _, name = options.run.partition(":")
    command = getattr(importlib.import_module(f"torch_warmstart.cli.commands.{module}"), name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WarmStartWarning)  # a plan and a report say them, too
        answer: Answer = command(options)
    return answer


def _print(answer: Answer, *, as_json: bool) -> None:
    if answer.aside:
        print(answer.aside, file=sys.stderr)
    if as_json:
        document = answer.document if answer.document is not None else answer.result.to_dict()
        print(json.dumps(_finite(document), indent=1, allow_nan=False))
    elif answer.text is not None or not _print_coloured(answer.result):
        text = str(answer.result if answer.text is None else answer.text)
        if text:  # of a list without entries, not even an empty line
            print(text)


def _finite(value: Any) -> Any:
    """A document with null for what is no number: JSON has no word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _print_coloured(result: Any) -> bool:
    """Whether a result was printed with colours: one with lines of kinds, on a terminal."""
    if not hasattr(result, "_sheet") or not _shows_colours():
        return False
    lines = list(result._sheet().lines())
    if len(lines) > _MOST_COLOURED:
        return False
    from rich.console import Console

    from torch_warmstart.cli.colours import coloured

    console = Console(soft_wrap=True, highlight=False)
    for line in coloured(lines):
        console.print(line)
    return True


def _shows_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _error_document(error: BaseException) -> dict[str, Any]:
    """What went wrong, for `--json`: of a plan, each problem with its code."""
    problems = error.problems if isinstance(error, PlanError) else ()
    names = ("code", "severity", "subject", "text", "hint")
    return {
        "version": VERSION,
        "kind": "error",
        "error": type(error).__name__,
        "code": getattr(error, "code", "os-error"),
        "message": str(error),
        "problems": [{name: getattr(problem, name) for name in names} for problem in problems],
    }
