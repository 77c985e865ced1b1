"""What a warm start says beside its report: warnings before the first write, one line in the log.

Each warning is issued once, from the line of the caller's that asked for the warm start, before
anything is changed: where warnings are errors, the model stays as it was.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from torch_warmstart.errors import (
    CheckpointNotFoundError,
    CorruptCheckpointError,
    Finding,
    StorageError,
    WarmStartError,
    WarmStartWarning,
    as_sentence,
    with_code,
)
from torch_warmstart.execution.commit import SourceChangedError
from torch_warmstart.execution.report import WarmStartReport

_LOGGER = logging.getLogger("torch_warmstart")
_PACKAGE = str(Path(__file__).parents[1] / "_")[:-1]  # with the separator at its end


def warn_of(findings: Iterable[Finding]) -> None:
    """Issues a WarmStartWarning for each finding that is a warning, or for all that are alike."""
    found = [finding for finding in findings if finding.severity == "warning"]
    if not found:
        return
    from torch_warmstart.display import grouped

    for finding, more in grouped(found):
        hint = "" if finding.hint in finding.text else finding.hint
        text = " ".join(filter(None, (finding.text, hint, more.strip())))
        whole = with_code(text, finding.code)
        warnings.warn(WarmStartWarning(whole), stacklevel=_frames_of_ours())


def _frames_of_ours() -> int:
    """The `stacklevel` with which `warn_of`'s warning is one of the first line outside."""
    frame, level = sys._getframe(1), 1  # of `warn_of`, for which it is 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def log_of(report: WarmStartReport) -> None:
    """One line in the log `torch_warmstart`, of level INFO."""
    if _LOGGER.isEnabledFor(logging.INFO):
        _LOGGER.info("%s", report.summary)


def add_note(error: BaseException, note: str) -> None:
    """Says something beside an exception, which Python 3.10 has no place for but its arguments."""
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:
        error.args = (*error.args, note)


def as_ours(error: Exception, state: str) -> Exception:
    """An error of ours for whatever was raised; itself if it is one, or a warning of ours.

    Args:
        error: What was raised.
        state: What has become of what was to be changed.
    """
    if isinstance(error, WarmStartError | WarmStartWarning):
        return error
    text = f"{sentence_of(error)} {state}"
    if isinstance(error, SourceChangedError):
        return CorruptCheckpointError(text)
    if isinstance(error, FileNotFoundError):
        return CheckpointNotFoundError(text)
    if isinstance(error, OSError):
        return StorageError(text)
    return WarmStartError(text)


def sentence_of(error: Exception) -> str:
    """What was raised, as a sentence."""
    is_ours = isinstance(error, SourceChangedError | WarmStartError)
    text = str(error) if is_ours else f"{type(error).__name__}: {error}".rstrip(": ")
    return as_sentence(text)
