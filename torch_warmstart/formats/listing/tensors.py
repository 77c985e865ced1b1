"""What is told of one tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch_warmstart.dtypes import dtype_name
from torch_warmstart.values import frozen

_SAME_TYPE = {  # words of the formats that say no more than torch's
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "BF16": "bfloat16",
}
_LETTERS = {"I": "int", "U": "uint", "F": "float", "C": "complex"}  # of safetensors


@frozen
class TensorRow:
    """A tensor without its values."""

    key: str
    dtype: str | None  # torch's; None: strings, or not for torch
    stored_dtype: str
    shape: tuple[int, ...]
    elements: int
    bytes: int
    files: tuple[str, ...]
    num_slices: int  # 0: in one piece
    layer: str = ""  # that the file has it in, with its class; "": the file has no layers

    @property
    def stored_as(self) -> str:
        """The format's word for the type, where it is another type than torch's."""
        stored = _SAME_TYPE.get(self.stored_dtype, self.stored_dtype)
        if stored[:1] in _LETTERS and stored[1:].isdigit():
            stored = _LETTERS[stored[0]] + stored[1:]
        same = self.dtype is None or stored.lower() == self.dtype
        return "" if same else self.stored_dtype

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `COLUMNS`."""
        return (
            self.key,
            self.layer,
            self.dtype or self.stored_dtype,
            self.stored_as,
            str(list(self.shape)),
            f"{self.bytes:,}" if self.dtype else "",
            str(self.num_slices or ""),
            ", ".join(self.files),
        )


COLUMNS = ("key", "layer", "dtype", "stored as", "shape", "bytes", "slices", "file")


def row_of(checkpoint: Any, key: str) -> TensorRow:
    """What is told of a tensor of a `Checkpoint`."""
    spec, location = checkpoint.spec(key), checkpoint.location(key)
    layer = checkpoint.layer_of(key)
    kind = f" ({layer.kind})" if layer is not None and layer.kind else ""
    return TensorRow(
        key=spec.key,
        dtype=None if spec.dtype is None else dtype_name(spec.dtype),
        stored_dtype=spec.stored_dtype,
        shape=spec.shape,
        elements=spec.numel,
        bytes=spec.nbytes,
        files=location.files,
        num_slices=location.num_slices,
        layer="" if layer is None else f"{layer.name}{kind}",
    )


def by_dtype(rows: Iterable[TensorRow]) -> dict[str, dict[str, int]]:
    """How many tensors, elements and bytes there are of each dtype."""
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        name = row.dtype or row.stored_dtype
        total = totals.setdefault(name, {"tensors": 0, "elements": 0, "bytes": 0})
        total["tensors"] += 1
        total["elements"] += row.elements
        total["bytes"] += row.bytes
    return totals
