"""The bytes that files of a kind begin with: the one list, for whoever tells what a file is."""

from __future__ import annotations

ZIP = b"PK\x03\x04"  # `.keras`, `.pt`, `.npz`
HDF5 = b"\x89HDF\r\n\x1a\n"
NPY = b"\x93NUMPY"
PARQUET = b"PAR1"
ARROW = b"ARROW1"
ARROW_STREAM = b"\xff\xff\xff\xff"  # before the first message
GZIP, BZIP2, XZ, ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
PACKED = {GZIP: "gzip", BZIP2: "bzip2", XZ: "xz", ZSTD: "zstd"}
