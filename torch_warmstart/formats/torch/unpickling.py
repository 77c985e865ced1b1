"""Tensors out of a pickle, and nothing else.

Files are loaded with `weights_only=True`, always: no code that a pickle names is run, and there is
no way around that here. Objects of others that lie beside the tensors are inert (`stand_ins`).
"""

from __future__ import annotations

import errno
import functools
import pickle
import re
from collections.abc import Mapping
from typing import IO, Any

import torch

from torch_warmstart.errors import (
    CorruptCheckpointError,
    StorageError,
    UnsupportedError,
    WarmStartError,
    as_sentence,
    printable,
)
from torch_warmstart.formats.torch.stand_ins import (
    TURNS,
    all_in,
    load_with_stand_ins,
    program_in,
)

# How torch words what it refuses: a name, a call, an instance. Its other errors are of bad bytes.
_REFUSED = re.compile(
    r"GLOBAL ([^\s,]+)|unrecognized function (.+)|`add_safe_globals`,? but got (.+)|(`.+) must be "
    r"imported"
)
_NO_MAP = re.compile(r"unable to (?:mmap|open|stat) .+\((\d+)\)")  # and the system's number
_OF_LATER_PROTOCOLS = "Unsupported operand 149"  # what pickles of protocol 4 and 5 begin with
_METADATA = "_metadata"  # of a state_dict: the versions of its modules
_DETAIL = re.compile(r"WeightsUnpickler error:\s*(.+)")


def load_tensors(
    file: str | IO[bytes], url: str, *, mmap: bool = False, stand_ins: bool = False
) -> Any:
    """`torch.load` on the CPU, of nothing but tensors and plain containers.

    Args:
        file: A path, or a file that can seek.
        url: Where it is, for messages.
        mmap: Map the file, which must be a path.
        stand_ins: Whether objects of others may be there, as `StandIn`s.

    Raises:
        UnsupportedError: it holds something else; the message names it.
        StorageError: the system refuses to open or to map it.
        CorruptCheckpointError: torch cannot read it.
    """
    load = functools.partial(torch.load, file, map_location="cpu", weights_only=True, mmap=mmap)
    try:
        with TURNS.plain():
            return _without_attributes(load())
    except WarmStartError:  # from the storage
        raise
    except Exception as error:  # torch raises whatever damaged bytes make its unpickler trip over
        refused = _refused(error)
        found = load_with_stand_ins(file, load) if refused is not None and stand_ins else None
        if found is not None:
            return _without_attributes(found)
        if refused is not None:
            program = program_in(file) if stand_ins else None
            text = _runs(url, program) if program is not None else refusal(url, refused)
            raise UnsupportedError(text) from error
        why = _why_not_read(error)
        if why is not None:
            raise StorageError(f"{url} cannot be read: {why}") from error
        if _OF_LATER_PROTOCOLS in str(error):
            raise UnsupportedError(
                f"{url} was written with pickle_protocol=4 or later, of which torch reads nothing "
                "with weights_only=True. Load it where you trust it, and save it without that."
            ) from error
        raise CorruptCheckpointError(
            f"{url} cannot be read as a torch file: {_first_line(error)}"
        ) from error


def _without_attributes(loaded: Any) -> Any:
    """The same; what a file sets on tensors and mappings would be taken for their methods."""
    for each in all_in([loaded], set()):  # it goes into a mapping when this is done with it
        if type(each) in (torch.Tensor, torch.nn.Parameter):
            vars(each).clear()
        elif isinstance(each, Mapping) and (attributes := getattr(each, "__dict__", None)):
            for name in attributes.keys() - {_METADATA}:
                del attributes[name]
    return loaded


def _why_not_read(error: Exception) -> str | None:
    """What the system says no to, or None if that is not what went wrong."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a damaged offset
        return as_sentence(error.strerror or str(error))
    no_map = _NO_MAP.match(str(error))
    if no_map is None:
        return None
    text = f"torch is {no_map[0]}."
    if int(no_map[1]) == errno.ENOMEM:
        text += " It maps no file that is larger than memory; a .safetensors may be."
    return text


def _refused(error: Exception) -> str | None:
    """What torch would not load because it may run code, or None if that is not what went wrong."""
    match = _REFUSED.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    return next((text.strip() for text in match.groups() if text), None) if match else None


def refusal(url: str, what: str) -> str:
    """The sentence for a file that asks for what is not known."""
    return (
        f"{url} holds more than tensors and plain containers, and loading that could run code: it "
        f"asks for {what}. Load it where you trust it, and pass the state_dict itself: "
        "torch.save(model.state_dict(), ...) writes a file that can be read here. If you trust "
        "just what it asks for (a Namespace, a Path, a numpy scalar), allow that: with "
        "torch.serialization.safe_globals([...]) around this call."
    )


def _runs(url: str, program: str) -> str:
    return (
        f"{url} holds more than tensors and plain containers, and loading that could run code: it "
        f"asks for {printable(program)}, which no file of tensors needs. Do not allow that; ask "
        "whoever made the file for one of torch.save(model.state_dict(), ...)."
    )


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    detail = _DETAIL.search(text)  # what comes before it advises to load without weights_only
    if detail:
        return detail[1]
    return text.splitlines()[0] if text else type(error).__name__
