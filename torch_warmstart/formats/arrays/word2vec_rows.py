"""Where the vectors of a word2vec binary file are, whose tokens may have spaces in them.

A token ends at a space, so `Toy Story` can be read as `Toy`, with the text `Story ` as the first
numbers of its vector. The file itself does not say which is meant, and the wrong reading may well
end where the file ends, since the next token makes up for the bytes. What tells them apart are the
numbers: those of one vector are of like magnitude, while text read as a number, or the bytes of
numbers read from another place, are of any. Where a vector begins like the rest of a token, every
reading is weighed by how many of its numbers are out of line, and where that does not decide, by
whether its tokens are text; if two readings weigh alike, the file is refused.

Rows are looked at in runs, each first as if tokens had no spaces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from torch_warmstart.errors import plural
from torch_warmstart.storage import Bytes

FLOAT = 4  # bytes
MAX_TOKEN = 10_000  # bytes; the original program's limit is 2,000

_SPACE = 32
_IN_TOKENS = np.ones(256, dtype=bool)  # bytes that tokens with spaces are made of
_IN_TOKENS[:_SPACE] = _IN_TOKENS[127] = False
_CONTROLS = bytes(np.flatnonzero(~_IN_TOKENS).tolist())
_USUAL_TOKEN = 32  # bytes
_RUNS = 32, 4096  # rows, at least and at most
_WIDTHS = 16, 256, MAX_TOKEN  # bytes looked at for more of a token; the next where one is full
_MAX_SPACES = 64  # in a token
_BLOCK = 1 << 22  # numbers weighed at a time
_ONE = 127  # the exponent of 1.0
_ALIKE = 24  # powers of two around the middle number of a vector
_LETTERS = 48  # powers of two around 1.0; letters are at 66 and more, a space at the end at -61
_CLEARLY = 4  # times as many numbers are out of line in a worse reading

Places = npt.NDArray[np.int64]


def find_vectors(raw: Bytes, start: int, count: int, dimension: int) -> Places:
    """Where each vector begins, the first token being at `start`; raises ValueError."""
    step, found = FLOAT * dimension, np.empty(count, dtype=np.int64)
    row, at, run = 0, start, _RUNS[1]
    while row < count:
        quick = _without_spaces(raw, at, min(run, count - row), step)
        if not len(quick):
            raise ValueError(f"row {row:,} is cut off or damaged")
        settled, unclear = _with_spaces(raw, quick, dimension)
        # A token begins where the vector before it ends, if the quick reading saw it there.
        apart = np.flatnonzero(quick[1:] <= settled[:-1] + step)
        holds = int(apart[0]) + 1 if len(apart) else len(settled)
        if unclear[:holds].any():
            raise ValueError(_two_readings(row + int(np.flatnonzero(unclear)[0])))
        found[row : row + holds] = settled[:holds]
        row, at = row + holds, int(settled[holds - 1]) + step
        run = min(max(2 * holds, _RUNS[0]), _RUNS[1])
    if raw[at:].tobytes() not in (b"", b"\n"):
        behind = f"{plural(len(raw) - at, 'byte')} behind the last vector"
        raise ValueError(f"it has {plural(count, 'vector')} and {behind}")
    return found


def bytes_at(raw: Bytes, offsets: Places, width: int) -> npt.NDArray[np.uint8]:
    """So many bytes from each offset on; zeros behind the end."""
    fits = offsets + width <= len(raw)
    if fits.all() and len(offsets):
        taken: npt.NDArray[np.uint8] = np.lib.stride_tricks.sliding_window_view(raw, width)[offsets]
        return taken
    taken = np.zeros((len(offsets), width), dtype=np.uint8)
    taken[fits] = bytes_at(raw, offsets[fits], width) if fits.any() else 0
    for row in np.flatnonzero(~fits).tolist():  # few: the last ones
        left = raw[int(offsets[row]) :][:width]
        taken[row, : len(left)] = left
    return taken


def _two_readings(row: int) -> str:
    return (
        f"row {row:,} can be read with and without a space in its token, and the numbers do not "
        "tell which is meant; save the table as text, or with underscores for spaces"
    )


def _without_spaces(raw: Bytes, at: int, count: int, step: int) -> Places:
    """Where the next vectors begin if each token ends at its first space; fewer at the end."""
    data = raw[at : at + count * (step + _USUAL_TOKEN) + MAX_TOKEN].tobytes()
    found, here = [], 0
    for _ in range(count):
        space = data.find(b" ", here, here + MAX_TOKEN)
        if space < 0:
            break
        found.append(space + 1)
        here = space + 1 + step
    vectors = at + np.array(found, dtype=np.int64)
    return vectors[vectors + step <= len(raw)]


def _with_spaces(raw: Bytes, quick: Places, dimension: int) -> tuple[Places, npt.NDArray[Any]]:
    """Where these vectors begin if tokens may have spaces, and which of them are unclear."""
    rows, behind = _more_of_tokens(raw, quick)
    fits = quick[rows] + behind + FLOAT * dimension <= len(raw)
    rows, behind = rows[fits], behind[fits]
    asked = np.unique(rows)
    offsets = np.concatenate([quick[asked], quick[rows] + behind])
    rows = np.concatenate([asked, rows])
    weights = _out_of_line(raw, offsets, dimension)
    settled, unclear = quick.copy(), np.zeros(len(quick), dtype=bool)
    settled[asked], unclear[asked] = _lightest(rows, offsets, weights)
    if unclear.any():
        text = np.flatnonzero(unclear[rows])
        weights[text] += [
            _is_odd(raw, start, at, FLOAT * dimension)
            for start, at in zip(quick[rows[text]].tolist(), offsets[text].tolist(), strict=True)
        ]
        settled[asked], unclear[asked] = _lightest(rows, offsets, weights)
    return settled, unclear


def _lightest(
    rows: Places, offsets: Places, weights: Places
) -> tuple[Places, npt.NDArray[np.bool_]]:
    """Of each row the offset of the least weight, and whether another weighs about as little."""
    order = np.lexsort((weights, rows))
    first = np.flatnonzero(np.diff(rows[order], prepend=-1))
    best, second = weights[order[first]], weights[order[np.minimum(first + 1, len(order) - 1)]]
    return offsets[order[first]], second <= _CLEARLY * best


def _is_odd(raw: Bytes, start: int, at: int, step: int) -> bool:
    """Whether a reading makes tokens that are no text: this one's rest, or the next one."""
    rest = raw[start:at].tobytes()
    word, space, _ = raw[at + step :][:MAX_TOKEN].tobytes().partition(b" ")
    following = word.removeprefix(b"\n")
    return not (_is_text(rest) and _is_text(following) and bool(space or not following))


def _is_text(token: bytes) -> bool:
    try:
        token.decode()
    except UnicodeDecodeError:
        return False
    return len(token.translate(None, _CONTROLS)) == len(token)


def _more_of_tokens(raw: Bytes, quick: Places) -> tuple[Places, Places]:
    """Rows whose vectors begin like text up to a space, and how many bytes that is: all pairs."""
    pairs, rows = [], np.arange(len(quick))
    for width in _WIDTHS:
        head = bytes_at(raw, quick[rows], width)
        text = np.logical_and.accumulate(_IN_TOKENS[head], axis=1)
        full = text[:, -1] & (width < _WIDTHS[-1])
        at, place = np.divmod(np.flatnonzero(text & (head == _SPACE) & ~full[:, None]), width)
        few = np.arange(len(at)) - np.searchsorted(at, at) < _MAX_SPACES
        pairs.append((rows[at[few]], place[few] + 1))
        rows = rows[full]
    return np.concatenate([r for r, _ in pairs]), np.concatenate([b for _, b in pairs])


def _out_of_line(raw: Bytes, offsets: Places, dimension: int) -> Places:
    """How many numbers of each vector are of another magnitude than the middle one.

    The middle one itself counts where it is as large or small as letters read as a number are.
    """
    size = max(1, _BLOCK // dimension)
    parts = [offsets[at : at + size] for at in range(0, len(offsets), size)]
    weights = [_out_of_line_of(bytes_at(raw, part, FLOAT * dimension)) for part in parts]
    return np.concatenate([np.empty(0, dtype=np.int64), *weights])


def _out_of_line_of(vectors: npt.NDArray[np.uint8]) -> Places:
    bits = vectors.view("<u4")
    powers = ((bits >> 23) & 255).astype(np.int16)
    powers[bits << 1 == 0] = -1  # zeros, which go with any
    ordered = np.sort(powers, axis=1)
    zeros = (ordered < 0).sum(axis=1)
    middle = np.minimum((zeros + powers.shape[1] - 1) // 2, powers.shape[1] - 1)
    centre = np.take_along_axis(ordered, middle[:, None], axis=1)
    apart = (powers >= 0) & (np.abs(powers - centre) > _ALIKE)
    odd = apart | (powers == 0)  # what is denormal is out of any line
    weights: Places = odd.sum(axis=1) + ((centre >= 0) & (np.abs(centre - _ONE) > _LETTERS))[:, 0]
    return weights
