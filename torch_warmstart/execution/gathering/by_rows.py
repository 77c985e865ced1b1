"""Whole rows, or whole tensors, from one place of this machine's memory to another: by numpy.

torch splits such a gather among threads that spin while they wait for each other; with a model of
many tables that is most of the time. Here a piece is one thread's work, and a short table is one
piece. What a row is made of does not matter, nor at which byte it begins.

A row that has no source is never written to, not even for a while, so it does not matter what
interrupts this, or how often it is begun again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from torch_warmstart.computing import GRAIN, blocks, in_threads
from torch_warmstart.dtypes import as_copied

if TYPE_CHECKING:
    import numpy.typing as npt

    _Rows = npt.NDArray[np.void]  # one element a row

PIECE_BYTES = 4 << 20  # of destination that one thread fills at a time
# The same of a whole copy, which goes at the speed of memory: for less, to start a thread takes as
# long as what it would save, and many times that where other work runs on the same cores.
COPIED_BYTES = 16 << 20
_WIDEST_ROW = 1 << 31  # bytes of a numpy record, before numpy 2
_STEP_BYTES = 512 << 10  # of these, what is made on the way; it stays in the cache


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one block of this machine's memory, with rows that have bytes."""
    return (
        type(tensor) is torch.Tensor
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.ndim > 0
        and tensor.numel() > 0
        and tensor.is_contiguous()
        and not tensor.is_conj()
        and not tensor.is_neg()
        and tensor.nbytes // len(tensor) < _WIDEST_ROW
        # Of what is made under inference_mode() torch itself says where it may be written to.
        and (torch.is_inference_mode_enabled() or not tensor.is_inference())
    )


def take_into(
    source: torch.Tensor, rows: torch.Tensor, out: torch.Tensor, *, complete: bool
) -> None:
    """`out[i] = source[rows[i]]` wherever `rows[i] >= 0`; others stay.

    Args:
        source: Plain, of the dtype of `out` and as wide.
        rows: int64.
        out: Plain.
        complete: Whether all have a source.
    """
    old, new, index = _rows_of(source), _rows_of(out), rows.numpy()
    step = max(1, _STEP_BYTES // new.itemsize)

    def move(piece: slice) -> None:
        if complete:
            np.take(old, index[piece], out=new[piece], mode="clip")
            return
        for start in range(piece.start, piece.stop, step):
            part = slice(start, min(start + step, piece.stop))
            at = np.flatnonzero(index[part] >= 0)
            new[part][at] = old.take(index[part][at])

    in_threads(move, blocks(len(new), out.device, max(1, PIECE_BYTES // new.itemsize)), out.device)
    torch.autograd.graph.increment_version(out)  # as torch does for what it writes itself


def copy_whole(source: torch.Tensor, out: torch.Tensor) -> None:
    """`out.copy_(source)`, of any kind, on any device.

    torch splits what has more than `GRAIN` elements among threads that spin while they wait for
    each other. Where both are plain, threads of ours take its pieces; a dtype is changed a few
    elements at a time, which stay in the cache and are too few for torch to split.
    """
    is_cast = source.dtype != out.dtype
    if not is_cast:
        source, out = as_copied(source), as_copied(out)
    is_small = out.numel() <= GRAIN or source.shape != out.shape
    if is_small or not (is_plain(source) and is_plain(out)) or (is_cast and out.is_inference()):
        out.copy_(source)
        return
    old, new = source.detach().view(-1), out.detach().view(-1)

    def move(piece: slice) -> None:
        if not is_cast:
            np.copyto(_rows_of(new[piece]), _rows_of(old[piece]))
            return
        for start in range(piece.start, piece.stop, GRAIN):
            part = slice(start, min(start + GRAIN, piece.stop))
            new[part].copy_(old[part])

    piece = PIECE_BYTES if is_cast else COPIED_BYTES
    in_threads(move, blocks(len(new), out.device, max(1, piece // new.element_size())), out.device)
    if not is_cast:
        torch.autograd.graph.increment_version(out)


def put_zeros(places: torch.Tensor, out: torch.Tensor) -> None:
    """Makes zeros of some rows; `out` is plain."""
    rows = _rows_of(out)
    rows[places.numpy()] = np.zeros((), rows.dtype)
    torch.autograd.graph.increment_version(out)


def _rows_of(tensor: torch.Tensor) -> _Rows:
    size = tensor.numel() // len(tensor) * tensor.element_size()
    data = tensor.unsqueeze(-1).view(torch.uint8).reshape(-1).numpy()
    rows: _Rows = data.view(np.dtype((np.void, size)))
    return rows
