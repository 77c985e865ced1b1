"""A progress bar for long work, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from torch_warmstart.errors import SettingsError

Advance = Callable[[str, int], None]  # what has been done, and how many bytes of the total it was

_WORTH_SHOWING = 256 << 20  # bytes; less is over before a bar can be read
_REFRESH_SECONDS = 0.1


def _advance_nothing(description: str, count: int) -> None:
    """What is called where no bar is shown."""


@contextmanager
def progress_bar(total: int, *, show: bool | None, title: str = "Warm start") -> Iterator[Advance]:
    """Yields a function to call after each step.

    Args:
        total: Bytes of work altogether.
        show: True or False; None shows a bar if the work is long and stderr is a terminal.
        title: What the work is called before its first step.
    """
    if show is not None and not isinstance(show, bool):
        raise SettingsError(f"progress is True, False or None, not {show!r:.60}.")
    bar = _open_bar(total, title) if _is_shown(total, show=show) else None
    try:
        yield bar.advance if bar is not None else _advance_nothing
    finally:
        if bar is not None:
            bar.close()


def _is_shown(total: int, *, show: bool | None) -> bool:
    if show is not None:
        return show
    try:
        return total >= _WORTH_SHOWING and sys.stderr.isatty()
    except (AttributeError, OSError, ValueError):  # there is no stderr, or it is closed
        return False


def _open_bar(total: int, title: str) -> _Bar | None:
    try:
        return _Bar(total, title)
    except Exception:  # whatever keeps a bar from being shown
        return None


class _Bar:
    """A bar that gives up at its first failure: a closed or full stderr stops no work."""

    def __init__(self, total: int, title: str = "Warm start") -> None:
        # Imported for a bar only: it takes longer than small work.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),  # names may have [brackets]
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,  # a thread of its own would fail where nobody catches it
            redirect_stdout=False,  # which a bar that fails would not give back
            redirect_stderr=False,
        )
        self._task = self._progress.add_task(title, total=total)
        self._is_alive = True
        self._shown = 0.0  # when, in seconds
        try:
            self._progress.start()
        except Exception:
            self._give_up()

    def advance(self, description: str, count: int) -> None:
        """Shows what has been done, at most some times a second."""
        if not self._is_alive:
            return
        try:
            self._progress.update(self._task, description=description, advance=count)
            if time.monotonic() - self._shown >= _REFRESH_SECONDS:
                self._shown = time.monotonic()
                self._progress.refresh()
        except Exception:
            self._give_up()

    def close(self) -> None:
        """Shows the end."""
        try:
            self._progress.stop()
        except Exception:
            self._is_alive = False

    def _give_up(self) -> None:
        self._is_alive = False
        with suppress(Exception):
            self._progress.stop()
