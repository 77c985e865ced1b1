"""Runs a command, and is the only module that prints.

Results go to stdout, all else to stderr. What a command needs is imported when it runs: `--help`,
`--version` and a wrong call are answered before torch could be imported.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TextIO

from torch_warmstart.cli import interrupts
from torch_warmstart.cli.answer import FAILED, Answer
from torch_warmstart.cli.arguments import WrongCallError, parse
from torch_warmstart.cli.colours import are_shown, coloured
from torch_warmstart.cli.wording import in_options
from torch_warmstart.display import VERSION
from torch_warmstart.errors import PlanError, WarmStartError, WarmStartWarning, printable

_TRACEBACK = "TORCH_WARMSTART_TRACEBACK"  # in the environment, for who looks for a mistake of ours


def answer_call(arguments: Sequence[str] | None) -> int:
    """Runs the command that the arguments name; returns the exit code."""
    _open_streams()
    try:
        try:
            options = parse(arguments)
        except WrongCallError as error:
            return _failed(error, as_json="--json" in (arguments or sys.argv), known=())
        return _answered(options)
    except KeyboardInterrupt:
        _tell(interrupts.SAID)
        return interrupts.CODE


def _answered(options: Any) -> int:
    try:
        answer = _run(options)
        _print(answer, options)
    except Exception as error:
        if os.environ.get(_TRACEBACK) and not isinstance(error, WarmStartError | OSError):
            raise
        return _failed(error, as_json=options.json, known=_known(options))
    return answer.code


def _known(options: Any) -> Collection[str]:
    """The options that messages name; not `--vars` where a settings file says what it would."""
    known: Mapping[str, Any] = vars(options)
    said_by_file = known.get("settings") is not None and known.get("vars") is None
    return known.keys() - {"vars"} if said_by_file else known


def _open_streams() -> None:
    """Streams that take whatever is printed: the caller may have closed them (`>&-`)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # not every name can be written in every encoding
            stream.reconfigure(errors="backslashreplace")


def _tell(text: str) -> None:
    """Says something that is no result; where nobody can be told, nothing is done about it."""
    with contextlib.suppress(OSError), _writing(sys.stderr):
        sys.stderr.write(text)


@contextlib.contextmanager
def _writing(stream: TextIO) -> Iterator[None]:
    """Whoever reads a stream may leave it, as `| head` does when it has seen enough.

    Raises OSError if it cannot be written otherwise.
    """
    try:
        yield
        stream.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for the flush at exit
        if not isinstance(error, BrokenPipeError):
            raise OSError(error.errno, error.strerror, stream.name) from error


def _failed(error: Exception, *, as_json: bool, known: Collection[str]) -> int:
    """Says what went wrong; returns the exit code."""
    if as_json:
        with contextlib.suppress(OSError), _writing(sys.stdout):
            print(json.dumps(_error_document(error, known), indent=1))
    usage = error.usage if isinstance(error, WrongCallError) else ""
    prog = error.prog if isinstance(error, WrongCallError) else "torch-warmstart"
    _tell(f"{usage}{prog}: {_said(error, known)}\n")
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
    interrupts.raise_again()  # torch is there, and what a command has begun it may have to undo
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WarmStartWarning)  # a plan and a report say them, too
        answer: Answer = command(options)
    return answer


def _print(answer: Answer, options: Any) -> None:
    if answer.aside:
        _tell(f"{answer.aside}\n")
    with _writing(sys.stdout):
        _print_result(answer, options)


def _print_result(answer: Answer, options: Any) -> None:
    if options.json:
        document = answer.document if answer.document is not None else answer.result.to_dict()
        print(json.dumps(_finite(document), indent=1, allow_nan=False))
    elif answer.text is None and hasattr(answer.result, "_sheet"):
        _print_sheet(answer.result._sheet(), _known(options))
    elif text := str(answer.result if answer.text is None else answer.text):
        print(text)  # of a list without entries, not even an empty line


def _print_sheet(sheet: Any, known: Collection[str]) -> None:
    remarks = tuple(in_options(remark, known) for remark in sheet.remarks)
    lines = list(replace(sheet, remarks=remarks).lines())
    if not are_shown(len(lines)):
        print("\n".join(text for _, text in lines))
        return
    from rich.console import Console

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
