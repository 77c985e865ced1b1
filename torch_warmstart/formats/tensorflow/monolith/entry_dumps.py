"""What a record says of an id: `EntryDump`, looked at for all records of a form together.

    EntryDump { sfixed64 id = 1; repeated float num = 2; OptimizerDump opt = 3;
                int64 last_update_ts_sec = 4; }
    OptimizerDump { repeated SingleOptimizerDump dump = 1; }     one for each segment of the row

Sources: monolith `runtime/hash_table/embedding_hash_table.proto`; `optimizer/optimizer.proto`;
`optimizer/optimizer_combination.cc`. Of the first record of a form the fields are walked. Which
bytes of it every other record must share is a mask; what a number says comes from its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from torch_warmstart.formats.base import MalformedError
from torch_warmstart.formats.tensorflow.monolith.record_files import TOGETHER, Records
from torch_warmstart.formats.tensorflow.wire import BYTES, FIXED32, FIXED64, VARINT, read_varint
from torch_warmstart.values import frozen

Rows = npt.NDArray[np.uint8]
Spots = npt.NDArray[np.int64]  # the places of numbers in a record

_MOST_FORMS = 4096  # of one file
_SAME, _SAME_END, _ANY = 0xFF, 0x80, 0  # what all records of a form share of a byte
_ID, _NUM, _OPT, _UPDATED = 1, 2, 3, 4
_DUMP = 1
# SingleOptimizerDump's kinds, and the slots of each: those that are floats, by field number.
_OPTIMIZERS: Mapping[int, tuple[str, Mapping[int, str]]] = {
    1: ("adagrad", {1: "norm"}),
    2: ("sgd", {}),
    3: ("ftrl", {1: "zero", 2: "norm"}),
    4: ("dynamic_wd_adagrad", {1: "norm"}),
    6: ("adadelta", {1: "accum", 2: "accum_update"}),
    7: ("adam", {1: "m", 2: "v", 3: "beta1_power", 4: "beta2_power"}),
    8: ("amsgrad", {1: "m", 2: "v", 3: "vhat", 4: "beta1_power", 5: "beta2_power"}),
    9: ("momentum", {1: "n"}),
    11: ("rmsprop", {1: "n"}),
    12: ("rmspropv2", {1: "n"}),
    13: ("group_ftrl", {1: "zero", 2: "norm"}),
    14: ("batch_softmax", {}),
    15: ("group_adagrad", {1: "grad_square_sum"}),
}


@frozen(eq=False)
class Form:
    """Where in a record its numbers lie, and what all records of the form share."""

    first: Rows  # the bytes of the record that it was found in
    mask: Rows
    id: int
    num: Spots
    slots: Mapping[str, Spots]
    updated: range  # the bytes of the varint; empty: it is not there

    def fits(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which rows are records of this form."""
        fits: npt.NDArray[np.bool_] = (((rows ^ self.first) & self.mask) == 0).all(1)
        return fits


@frozen(eq=False)
class Dumps:
    """The records of a file, and the form of each."""

    records: Records
    forms: tuple[Form, ...]
    form_of: npt.NDArray[np.int64]


def dumps_in(records: Records) -> Dumps:
    """Finds the form of every record; MalformedError: one is no EntryDump, or has no id."""
    forms: list[Form] = []
    form_of = np.zeros(len(records), np.int64)
    of_length: dict[int, list[int]] = {}
    for length, at in records.by_length():
        rows = records.rows(at, length)
        known = of_length.setdefault(length, [])
        left, tried = np.arange(len(at)), 0
        while len(left):
            if tried == len(known):
                if len(forms) == _MOST_FORMS:
                    raise MalformedError(f"its records have more than {_MOST_FORMS:,} forms")
                known.append(len(forms))
                forms.append(_form_in(rows[left[0]], int(at[left[0]])))
            fits = forms[known[tried]].fits(rows[left])
            form_of[at[left[fits]]] = known[tried]
            left, tried = left[~fits], tried + 1
    return Dumps(records, tuple(forms), form_of)


def _form_in(row: Rows, number: int) -> Form:
    try:
        return _Walk(row).form()
    except MalformedError as error:
        raise MalformedError(f"record {number:,}: {error}") from error


class _Walk:
    """Goes through the fields of one record and remembers where everything is."""

    def __init__(self, row: Rows) -> None:
        self._row, self._data = row, row.tobytes()
        self._mask = np.full(len(row), _SAME, np.uint8)
        self._id, self._num, self._updated = -1, [np.zeros(0, np.int64)], range(0)
        self._dumps: list[tuple[str, dict[str, list[Spots]]]] = []

    def form(self) -> Form:
        for number, kind, start, stop in self._fields(0, len(self._data)):
            if number == _ID and kind == FIXED64 and self._id < 0:
                self._id = start
            elif number == _NUM and kind in (FIXED32, BYTES):
                self._num.append(self._floats(start, stop))
            elif number == _OPT and kind == BYTES:
                self._optimizers(start, stop)
            elif number == _UPDATED and kind == VARINT:
                self._updated = range(start, stop)
            elif number in (_ID, _NUM, _OPT, _UPDATED):
                raise MalformedError(f"field {number} is there twice, or of wire type {kind}")
        if self._id < 0:
            raise MalformedError("it has no id")
        num = np.concatenate(self._num)
        return Form(self._row.copy(), self._mask, self._id, num, self._slots(), self._updated)

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Number, wire type and place of each field; what may differ is taken off the mask."""
        while at < end:
            tag, at = read_varint(self._data, at)
            number, kind = tag >> 3, tag & 7
            start = at
            if kind == VARINT:
                _, at = read_varint(self._data, at)
                self._mask[start:at] = _SAME_END
            elif kind == BYTES:
                size, start = read_varint(self._data, at)
                at = start + size
            elif kind in (FIXED32, FIXED64):
                at = start + (4 if kind == FIXED32 else 8)
                self._mask[start : min(at, end)] = _ANY
            else:
                raise MalformedError(f"wire type {kind} in field {number}")
            if at > end or not number:
                raise MalformedError(f"field {number} runs past its end")
            yield number, kind, start, at

    def _floats(self, start: int, stop: int) -> Spots:
        if (stop - start) % 4:
            raise MalformedError(f"{stop - start} bytes are no whole floats")
        self._mask[start:stop] = _ANY
        return np.arange(start, stop, 4, dtype=np.int64)

    def _optimizers(self, start: int, stop: int) -> None:
        for number, kind, first, last in self._fields(start, stop):
            if number != _DUMP or kind != BYTES:
                raise MalformedError(f"field {number} of its optimizers is not known")
            for which, wire, inner, end in self._fields(first, last):
                if which not in _OPTIMIZERS or wire != BYTES:
                    raise MalformedError(f"optimizer {which} is not known")
                self._dumps.append(self._optimizer(which, inner, end))

    def _optimizer(self, which: int, start: int, stop: int) -> tuple[str, dict[str, list[Spots]]]:
        name, slots = _OPTIMIZERS[which]
        found: dict[str, list[Spots]] = {}
        for number, kind, first, last in self._fields(start, stop):
            if number in slots and kind in (FIXED32, BYTES):
                found.setdefault(slots[number], []).append(self._floats(first, last))
            elif kind == BYTES:
                raise MalformedError(f"field {number} of {name} is not known")
        return name, found

    def _slots(self) -> Mapping[str, Spots]:
        """By name; those of segments side by side, where all have the same optimizer."""
        is_one = len({name for name, _ in self._dumps}) == 1
        spots: dict[str, list[Spots]] = {}
        for number, (name, found) in enumerate(self._dumps):
            where = name if is_one else f"{number}.{name}"
            for slot, parts in found.items():
                spots.setdefault(f"{where}/{slot}", []).extend(parts)
        return {name: np.concatenate(parts) for name, parts in spots.items()}


# -- numbers ---------------------------------------------------------------------------------------


def spots_of(form: Form, slot: str) -> Spots:
    """Where a form has a slot's floats; those of its row where `slot` is ""."""
    return form.num if not slot else form.slots.get(slot, form.num[:0])


def ids_of(dumps: Dumps, at: Spots) -> npt.NDArray[np.int64]:
    """The ids of these records."""
    found = np.zeros(len(at), np.int64)
    for form, here, rows in _by_form(dumps, at):
        eight = np.ascontiguousarray(rows[:, form.id : form.id + 8])
        found[here] = eight.view("<i8")[:, 0]
    return found


def floats_of(dumps: Dumps, at: Spots, slot: str, width: int) -> npt.NDArray[np.float32]:
    """A slot's floats of these records, which all have `width`: [len(at), width]."""
    found = np.zeros((len(at), width), np.float32)
    for form, here, rows in _by_form(dumps, at):
        places = spots_of(form, slot)[:, None] + np.arange(4)
        found[here] = np.ascontiguousarray(rows[:, places.ravel()]).view("<f4")
    return found


def updates_of(dumps: Dumps, at: Spots) -> npt.NDArray[np.int64]:
    """When these records were last updated, in seconds since 1970; 0 where that is not kept."""
    found = np.zeros(len(at), np.uint64)
    for form, here, rows in _by_form(dumps, at):
        for place, column in enumerate(form.updated):
            septet = (rows[:, column] & 0x7F).astype(np.uint64)
            found[here] |= septet << np.uint64(7 * place)
    return found.view(np.int64)


def _by_form(dumps: Dumps, at: Spots) -> Iterator[tuple[Form, Spots, Rows]]:
    """Of these records those of one form: which of them, and their bytes; some at a time."""
    forms = dumps.form_of[at]
    order = np.argsort(forms, kind="stable")
    edges = np.flatnonzero(np.diff(forms[order])) + 1
    for alike in np.split(order, edges) if len(order) else ():
        form = dumps.forms[forms[alike[0]]]
        length = len(form.first)
        step = max(1, TOGETHER // max(length, 1))
        for first in range(0, len(alike), step):
            here = alike[first : first + step]
            yield form, here, dumps.records.rows(at[here], length)
