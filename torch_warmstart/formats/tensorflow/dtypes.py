"""TensorFlow's DataType enum, and how each type's stored bytes become a torch tensor.

Source: tensorflow `core/framework/types.proto`. Types of less than a byte (int4, ...) are stored
one element a byte in the low bits; quantised types are plain integers, as TF's own reader says.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.values import frozen

Unpack = Callable[[torch.Tensor], torch.Tensor]


@frozen
class StoredType:
    """One row of the enum."""

    name: str  # TF's name, lower case and without DT_
    dtype: torch.dtype | None = None  # None: torch cannot hold it (or it is a string)
    unpack: Unpack | None = None  # what to do to the stored elements; None: nothing

    @property
    def itemsize(self) -> int:
        """Stored bytes an element."""
        return self.dtype.itemsize if self.dtype is not None else 1


STRING = StoredType("string")


def _sign_extend(bits: int) -> Unpack:
    unused = 8 - bits
    return lambda stored: (stored << unused) >> unused  # int8: the second shift keeps the sign


def _low_bits(bits: int) -> Unpack:
    return lambda stored: stored & ((1 << bits) - 1)


def _checked_bool(stored: torch.Tensor) -> torch.Tensor:
    raw = stored.view(torch.uint8)
    if raw.numel() and int(raw.max()) > 1:
        raise CorruptCheckpointError("a bool tensor holds bytes other than 0 and 1")
    return stored


STORED_TYPES: dict[int, StoredType] = {
    1: StoredType("float", torch.float32),
    2: StoredType("double", torch.float64),
    3: StoredType("int32", torch.int32),
    4: StoredType("uint8", torch.uint8),
    5: StoredType("int16", torch.int16),
    6: StoredType("int8", torch.int8),
    7: STRING,
    8: StoredType("complex64", torch.complex64),
    9: StoredType("int64", torch.int64),
    10: StoredType("bool", torch.bool, _checked_bool),
    11: StoredType("qint8", torch.int8),
    12: StoredType("quint8", torch.uint8),
    13: StoredType("qint32", torch.int32),
    14: StoredType("bfloat16", torch.bfloat16),
    15: StoredType("qint16", torch.int16),
    16: StoredType("quint16", torch.uint16),
    17: StoredType("uint16", torch.uint16),
    18: StoredType("complex128", torch.complex128),
    19: StoredType("half", torch.float16),
    20: StoredType("resource"),
    21: StoredType("variant"),
    22: StoredType("uint32", torch.uint32),
    23: StoredType("uint64", torch.uint64),
    24: StoredType("float8_e5m2", torch.float8_e5m2),
    25: StoredType("float8_e4m3fn", torch.float8_e4m3fn),
    26: StoredType("float8_e4m3fnuz", torch.float8_e4m3fnuz),
    27: StoredType("float8_e4m3b11fnuz"),
    28: StoredType("float8_e5m2fnuz", torch.float8_e5m2fnuz),
    29: StoredType("int4", torch.int8, _sign_extend(4)),
    30: StoredType("uint4", torch.uint8, _low_bits(4)),
    31: StoredType("int2", torch.int8, _sign_extend(2)),
    32: StoredType("uint2", torch.uint8, _low_bits(2)),
    33: StoredType("float4_e2m1fn"),
}
