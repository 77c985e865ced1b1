"""What is written, and what cannot be: a checkpoint under its own names, or a model's state."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from torch_warmstart.conversion import safetensors_file, torch_file
from torch_warmstart.conversion.pieces import Piece
from torch_warmstart.display import VERSION, progress_bar
from torch_warmstart.errors import CorruptCheckpointError, SettingsError, path_of, plural, printable
from torch_warmstart.formats import Checkpoint, Family, SavedLayer, family_of
from torch_warmstart.storage import check_free, whole_file
from torch_warmstart.values import frozen

_SAFETENSORS, _TORCH = (".safetensors",), (".pt", ".pth", ".bin")
_TIMES_SHOWN = 8


@frozen(repr=False)
class Conversion:
    """What was written into a file, and what was not.

    Args:
        path: The file.
        source: What it was made of.
        keys: The names of the tensors in it.
        nbytes: Bytes of their values.
        left_out: Names of what was not written (of a whole checkpoint also what is no tensor of it:
            optimizers' states, epochs, which id a row is of), with the reasons.
        written: False for a dry run.
    """

    path: str
    source: str
    keys: tuple[str, ...]
    nbytes: int
    left_out: Mapping[str, str]
    written: bool

    def __repr__(self) -> str:
        return f"<Conversion: {str(self).partition(chr(10))[0]}>"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, with `version` and `totals`."""
        return {
            "version": VERSION,
            "kind": "conversion",
            "path": self.path,
            "source": self.source,
            "keys": list(self.keys),
            "left_out": dict(self.left_out),
            "written": self.written,
            "totals": {
                "tensors": len(self.keys),
                "bytes": self.nbytes,
                "left_out": len(self.left_out),
            },
        }

    def __str__(self) -> str:
        verb = "Wrote" if self.written else "Would write"
        tensors = f"{plural(len(self.keys), 'tensor')}, {plural(self.nbytes, 'byte')}"
        lines = [f"{verb} {self.path} from {self.source}: {tensors}"]
        listed = list(self.left_out.items())
        lines += [f"Left out {key}: {why}" for key, why in listed[:_TIMES_SHOWN]]
        if len(listed) > _TIMES_SHOWN:
            lines.append(f"Left out {len(listed) - _TIMES_SHOWN:,} more")
        return "\n".join(map(printable, lines))


def convert_checkpoint(
    checkpoint: Checkpoint,
    path: str | os.PathLike[str],
    *,
    keys: Sequence[str] | None = None,
    force: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
) -> Conversion:
    """Writes a checkpoint's tensors under their own names: those of some keys, or all."""
    pieces: list[Piece] = []
    left_out = {} if keys is not None else dict(_besides_tensors(checkpoint))
    for key in checkpoint if keys is None else keys:
        spec = checkpoint.spec(key)
        if spec.dtype is None:
            left_out[key] = spec.unreadable or f"{spec.stored_dtype} is nothing that torch can hold"
        else:
            read = _reader(checkpoint, key)
            pieces.append(Piece(key, spec.shape, spec.dtype, read, spec.storage))
    where = path_of("convert: path", path)
    if where.endswith(_TORCH):
        _check_family(checkpoint, pieces, where)
    write = _writer(where, checkpoint.family, None)
    return _write(
        where,
        checkpoint.url,
        pieces,
        left_out,
        write,
        force=force,
        dry_run=dry_run,
        progress=progress,
    )


def _besides_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """What a checkpoint holds that is none of its tensors, and that no other file has then."""
    own = frozenset(checkpoint)
    # Of files beside the weights nothing is read: those stay where they are.
    for saved in () if checkpoint.has_optimizers_beside else checkpoint.optimizer_states():
        slots = (key for parameter in saved.parameters for key in parameter.slots.values())
        if own.isdisjoint(slots):  # else they lie between the weights
            yield saved.path, "an optimizer's state"
    for path, what in checkpoint.besides().items():
        yield path, f"{what}, which is no tensor"
    if any(_is_described(checkpoint.layer_of(key)) for key in checkpoint):
        yield (
            "what the file says of its layers",
            "activations, axes and the like, by which a model is checked that takes their tensors; "
            "write the state of that model instead (model=, --model)",
        )
    if checkpoint.family == "torch":
        return  # TorchRec's tables have their ids as tensors, and are told by their names
    try:
        tables = checkpoint.tables()
    except CorruptCheckpointError as error:  # the tensors may be whole
        yield "the ids of its tables", str(error)
        return
    for name, table in tables.items():
        ids = f"{{{table.values!r}: checkpoint.tables()[{name!r}].keys}}"
        why = f"which row is whose is written by tws.save_vocabularies(path, {ids})"
        yield f"the ids of {name}", why


def _is_described(layer: SavedLayer | None) -> bool:
    """Whether the file has settings of a layer, or of one that it is in."""
    while layer is not None and not layer.options:
        layer = layer.around
    return layer is not None


def _reader(checkpoint: Checkpoint, key: str) -> Callable[[], torch.Tensor]:
    return lambda: checkpoint.view_tensor(key)


def _check_family(checkpoint: Checkpoint, pieces: Sequence[Piece], where: str) -> None:
    """A torch file does not say whose layouts its tensors have; their names must."""
    by_names = family_of([piece.key for piece in pieces])
    is_open = by_names == "tensorflow_or_flax" and checkpoint.family in ("tensorflow", "flax")
    if by_names != checkpoint.family and not is_open:
        raise SettingsError(
            f"{where} would not say that its tensors are laid out as in {checkpoint.family}, and "
            "their names do not either: kernels would be taken for others'. Write a .safetensors, "
            "which says it, or the state of a model that they are loaded into (model=, --model)."
        )


def write_state(
    state: Mapping[str, Any],
    path: str | os.PathLike[str],
    source: str,
    *,
    force: bool = False,
    dry_run: bool = False,
    progress: bool | None = None,
) -> Conversion:
    """Writes a model's `state_dict()`."""
    pieces, left_out = [], {}
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            one = (value.data_ptr(), value.stride(), str(value.device)) if value.numel() else None
            pieces.append(Piece(key, tuple(value.shape), value.dtype, _given(value), one))
        else:
            left_out[key] = f"a {type(value).__name__}, which is no tensor"
    where = os.fspath(path)
    write = _writer(where, "torch", getattr(state, "_metadata", None))
    return _write(
        where, source, pieces, left_out, write, force=force, dry_run=dry_run, progress=progress
    )


def _given(value: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: value


_Write = Callable[[Any, Sequence[Piece], Callable[[str, int], None]], None]


def _writer(path: str, family: Family, metadata: Any) -> _Write:
    """What writes a file of that name."""
    if path.endswith(_SAFETENSORS):
        return lambda file, pieces, advance: safetensors_file.write(file, pieces, family, advance)
    if path.endswith(_TORCH):
        return lambda file, pieces, advance: torch_file.write(file, pieces, metadata, advance)
    raise SettingsError(
        f"{path!r}: the name's ending says what is written: .safetensors or .pt (.pth, .bin)."
    )


def _write(
    path: str,
    source: str,
    pieces: Sequence[Piece],
    left_out: Mapping[str, str],
    write: _Write,
    *,
    force: bool,
    dry_run: bool,
    progress: bool | None,
) -> Conversion:
    """Writes what the format can hold; nothing at all for a dry run, but what would be said."""
    unholdable = {
        piece.key: f"a .safetensors file has no {piece.dtype}"
        for piece in pieces
        if path.endswith(_SAFETENSORS) and not safetensors_file.can_hold(piece.dtype)
    }
    held = [piece for piece in pieces if piece.key not in unholdable]
    if not held:
        raise SettingsError(f"{source} has no tensor that could be written into {path}.")
    check_free(path, force=force)
    size = sum(piece.nbytes for piece in held)
    if not dry_run:
        bar = progress_bar(size, show=progress, title="Convert")
        with whole_file(path, force=force) as file, bar as advance:
            write(file, held, advance)
    keys = tuple(piece.key for piece in held)
    return Conversion(path, source, keys, size, {**left_out, **unholdable}, not dry_run)
