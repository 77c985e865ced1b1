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
import traceback
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from torch_warmstart.cli.answer import FAILED, OK, Answer
from torch_warmstart.cli.arguments import WrongCallError, parse
from torch_warmstart.cli.wording import in_options
from torch_warmstart.errors import PlanError, WarmStartError, WarmStartWarning, printable

VERSION = 1  # of the documents that `--json` prints
_INTERRUPTED = 130  # as shells have it
_TRACEBACK = "TORCH_WARMSTART_TRACEBACK"  # in the environment, for who looks for a mistake of ours
_MOST_COLOURED = 3_000  # lines; rich takes a millisecond for one


def run() -> NoReturn:
    """The console script: a process of its own."""
    gc.disable()  # of a short run's 100,000 small objects, none is garbage: a third of the time
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0; 1 for a difference; 2 with a message on stderr.

    130 if it is interrupted. `--help` and `--version` leave by SystemExit, as argparse has it.
    """
    _open_streams()
    try:
        options = parse(arguments)
    except WrongCallError as error:
        return _failed(error, as_json="--json" in (arguments or sys.argv), known=())
    code = OK
    try:
        answer = _run(options)
        code = answer.code
        _print(answer, options)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
    except KeyboardInterrupt:
        print("torch-warmstart: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except Exception as error:
        if os.environ.get(_TRACEBACK) and not isinstance(error, WarmStartError | OSError):
            raise
        return _failed(error, as_json=options.json, known=vars(options))
    return code


def _open_streams() -> None:
    """Streams that take whatever is printed: the caller may have closed them (`>&-`)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # not every name can be written in every encoding
            stream.reconfigure(errors="backslashreplace")


def _failed(error: Exception, *, as_json: bool, known: Collection[str]) -> int:
    """Says what went wrong; returns the exit code."""
    if as_json:
        print(json.dumps(_error_document(error, known), indent=1))
    usage = error.usage if isinstance(error, WrongCallError) else ""
    prog = error.prog if isinstance(error, WrongCallError) else "torch-warmstart"
    print(f"{usage}{prog}: {_said(error, known)}", file=sys.stderr)
    return FAILED


def _said(error: Exception, known: Collection[str]) -> str:
    if isinstance(error, OSError) and not isinstance(error, WarmStartError) and error.filename:
        return f"{printable(str(error.filename))}: {error.strerror}"
    if isinstance(error, WarmStartError | OSError | WrongCallError):
        return in_options(str(error), known)
    *_, last = traceback.extract_tb(error.__traceback__)
    return (
        f"{type(error).__name__}: {error}\n  {last.filename}, line {last.lineno}, in {last.name}\n"
        f"Nobody expected that. {_TRACEBACK}=1 in the environment shows where it comes from."
    )


def _run(options: Any) -> Answer:
    module, _, name = options.run.partition(":")
    command = getattr(importlib.import_module(f"torch_warmstart.cli.commands.{module}"), name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WarmStartWarning)  # a plan and a report say them, too
        answer: Answer = command(options)
    return answer


def _print(answer: Answer, options: Any) -> None:
    if answer.aside:
        print(answer.aside, file=sys.stderr)
    if options.json:
        document = answer.document if answer.document is not None else answer.result.to_dict()
        print(json.dumps(_finite(document), indent=1, allow_nan=False))
    elif answer.text is None and hasattr(answer.result, "_sheet"):
        _print_sheet(answer.result._sheet(), vars(options))
    elif text := str(answer.result if answer.text is None else answer.text):
        print(text)  # of a list without entries, not even an empty line


def _print_sheet(sheet: Any, known: Collection[str]) -> None:
    remarks = tuple(in_options(remark, known) for remark in sheet.remarks)
    lines = list(replace(sheet, remarks=remarks).lines())
    if not _shows_colours() or len(lines) > _MOST_COLOURED:
        print("\n".join(text for _, text in lines))
        return
    from rich.console import Console

    from torch_warmstart.cli.colours import coloured

    console = Console(soft_wrap=True, highlight=False)
    for line in coloured(lines):
        console.print(line)


def _finite(value: Any) -> Any:
    """A document with null for what is no number: JSON has no word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def _shows_colours() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _error_document(error: BaseException, known: Collection[str]) -> dict[str, Any]:
    """What went wrong, for `--json`: of a plan, each problem with its code."""
    problems = error.problems if isinstance(error, PlanError) else ()
    names = ("code", "severity", "subject", "text", "hint")
    return {
        "version": VERSION,
        "kind": "error",
        "error": type(error).__name__,
        "code": _code(error),
        "message": in_options(str(error), known),
        "problems": [
            {name: in_options(getattr(problem, name), known) for name in names}
            for problem in problems
        ],
    }


def _code(error: BaseException) -> str:
    if isinstance(error, WarmStartError | WrongCallError):
        return error.code
    return "os-error" if isinstance(error, OSError) else "unexpected"
