"""What a command hands back: a result, an exit code, and what is said beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch_warmstart.values import frozen

OK = 0
DIFFERENT = 1  # things differ, nothing matched, or a threshold is missed
FAILED = 2  # an error of ours; a wrong call ends with it too


@frozen
class Answer:
    """The result of a command.

    `result` goes to stdout: a text, or something with a text that `to_dict` makes JSON of.
    """

    result: Any
    code: int = OK
    aside: str = ""  # for stderr
    document: Mapping[str, Any] | None = None  # for --json, where the result is a text
    text: str | None = None  # instead of the result's own
