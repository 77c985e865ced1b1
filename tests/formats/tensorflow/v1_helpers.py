"""What the tests of TensorFlow V1 checkpoints share."""

from __future__ import annotations

import math

import numpy as np
import torch
from bundle_writer import FULL, DType
from v1_writer import V1Slice, V1Tensor, tensor_proto


def in_rows(name: str, *sizes: int, width: int = 2, files: tuple[int, ...] = ()) -> V1Tensor:
    """A float tensor that counts up from 0, cut into slices of so many rows."""
    parts, row = [], 0
    for number, size in enumerate(sizes):
        elements = range(row * width, (row + size) * width)
        proto = tensor_proto(DType.FLOAT, list(elements))
        file = files[number] if files else 0
        parts.append(V1Slice([(row, size), FULL], proto, file))
        row += size
    return V1Tensor(name, DType.FLOAT, [row, width], parts)


VALUES = [  # type, elements as stored, what they are
    (DType.FLOAT, [1.5, -2, math.inf], torch.tensor([1.5, -2, math.inf])),
    (DType.DOUBLE, [1e300, -0.1], torch.tensor([1e300, -0.1], dtype=torch.float64)),
    (DType.HALF, [0x3C00, 0xC000], torch.tensor([1, -2], dtype=torch.float16)),
    (DType.BFLOAT16, [0x3F80, 0xC000], torch.tensor([1, -2], dtype=torch.bfloat16)),
    (DType.INT32, [0, 300, -1, -(2**31)], torch.tensor([0, 300, -1, -(2**31)], dtype=torch.int32)),
    (DType.INT16, [2**15 - 1, -(2**15)], torch.tensor([2**15 - 1, -(2**15)], dtype=torch.int16)),
    (DType.INT8, [127, -128, 0], torch.tensor([127, -128, 0], dtype=torch.int8)),
    (DType.UINT8, [0, 127, 128, 255], torch.tensor([0, 127, 128, 255], dtype=torch.uint8)),
    (DType.UINT16, [0, 65535], torch.from_numpy(np.array([0, 65535], np.uint16))),
    (DType.UINT32, [0, 2**32 - 1], torch.from_numpy(np.array([0, 2**32 - 1], np.uint32))),
    (DType.INT64, [0, 2**63 - 1, -(2**63)], torch.tensor([0, 2**63 - 1, -(2**63)])),
    (DType.UINT64, [1, 2**64 - 1], torch.from_numpy(np.array([1, 2**64 - 1], np.uint64))),
    (DType.BOOL, [0, 1, 1], torch.tensor([False, True, True])),
    (DType.QINT8, [-1, 5], torch.tensor([-1, 5], dtype=torch.int8)),
    (DType.QINT32, [-1, 2**31 - 1], torch.tensor([-1, 2**31 - 1], dtype=torch.int32)),
    (DType.COMPLEX64, [1, 2, -3, 0.5], torch.tensor([1 + 2j, -3 + 0.5j])),
    (DType.COMPLEX128, [1, 2], torch.tensor([1 + 2j], dtype=torch.complex128)),
]
