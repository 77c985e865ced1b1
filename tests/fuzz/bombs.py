"""Hostile files too large to keep: each is built when it is needed, and each was meant to hurt.

A file of a megabyte that takes a gigabyte or a minute hides from random damage, which works on
small files. Every builder here returns a case that must be read or refused within the limits; where
it reaches for a file that is not its own, nothing at all may be read.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fuzz import bombs_tensorflow
from fuzz.bomb import BOMBS, KIB, bomb, case_of
from fuzz.cases import Case
from fuzz.seeds import VOCABULARY

__all__ = ["BOMBS", "bombs_tensorflow"]  # the latter adds its own to the former

# ---- safetensors and Hugging Face ------------------------------------------------------------


def _safetensors(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _one_safetensors(header: bytes, data: bytes = b"") -> Case:
    return case_of("safetensors", "m.safetensors", {"m.safetensors": _safetensors(header, data)})


@bomb
def deep_header() -> Case:
    """A header of 200,000 opened lists."""
    return _one_safetensors(b'{"a":' + b"[" * 200_000)


@bomb
def huge_shape() -> Case:
    """Nothing, in a shape that no integer holds."""
    header = {"a": {"dtype": "F32", "shape": [0, 1 << 62, 1 << 62], "data_offsets": [0, 0]}}
    return _one_safetensors(json.dumps(header).encode())


@bomb
def many_empty_tensors() -> Case:
    """20,000 tensors of nothing."""
    row = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return _one_safetensors(json.dumps({f"t{at}": row for at in range(20_000)}).encode())


@bomb
def overlapping_tensors() -> Case:
    """2,000 tensors that are the same 100 KB."""
    row = {"dtype": "U8", "shape": [100 * KIB], "data_offsets": [0, 100 * KIB]}
    header = json.dumps({f"t{at}": row for at in range(2_000)}).encode()
    return _one_safetensors(header, bytes(100 * KIB))


_SECRET = _safetensors(
    json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode(), bytes(4)
)


def _hf(name: str) -> Case:
    index = json.dumps({"metadata": {}, "weight_map": {"a": name}}).encode()
    files = {"in/model.safetensors.index.json": index, "secret.safetensors": _SECRET}
    return case_of("hf", "in", files, refuse=True)


@bomb
def shard_above() -> Case:
    """An index that names a file above its folder."""
    return _hf("../secret.safetensors")


@bomb
def shard_with_backslash() -> Case:
    """The same, as Windows writes it."""
    return _hf("..\\secret.safetensors")


@bomb
def shard_by_url() -> Case:
    """An index that names a file by a URL."""
    return _hf("file:///etc/hostname")


# ---- torch -----------------------------------------------------------------------------------


def _zipped(members: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", packing) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def _torch_file(pickle: bytes, packing: int = zipfile.ZIP_STORED, **more: bytes) -> Case:
    members = {"m/data.pkl": pickle, "m/version": b"3\n", "m/byteorder": b"little", **more}
    return case_of("torch", "m.pt", {"m.pt": _zipped(members, packing)})


def _tensor_pickle(size: str, stride: str, numel: str) -> bytes:
    """A state dict of one tensor on storage "0", in opcodes that can be read."""
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI{numel}\ntQ"
    tensor = f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I0\n({size}t({stride}tI00\n"
    text = f"}}S'a'\n{tensor}ccollections\nOrderedDict\n)RtRs."
    return b"\x80\x02" + text.encode()


@bomb
def strides_of_zero() -> Case:
    """A tensor of 2**36 elements that are all the same one."""
    pickle = _tensor_pickle(f"I{1 << 36}\n", "I0\n", "1")
    return _torch_file(pickle, **{"m/data/0": bytes(4)})


@bomb
def storage_that_lies() -> Case:
    """A storage of a gigabyte in four bytes."""
    pickle = _tensor_pickle(f"I{1 << 28}\n", "I1\n", str(1 << 28))
    return _torch_file(pickle, **{"m/data/0": bytes(4)})


@bomb
def storage_of_its_neighbour() -> Case:
    """A storage that claims the bytes of what follows it in the file."""
    pickle = _tensor_pickle("I64\n", "I1\n", "64")
    case = _torch_file(pickle, **{"m/data/0": bytes(4), "m/data/1": b"secret" * 100})
    return Case(case.format, case.seed, case.target, case.files, same=None)


@bomb
def pickle_that_allocates() -> Case:
    """`bytearray(10**9)`."""
    return _torch_file(b"\x80\x02}S'a'\ncbuiltins\nbytearray\n(I1000000000\ntRs.")


@bomb
def pickle_of_doubles() -> Case:
    """A list that holds the one before it twice, forty times over."""
    return _torch_file(b"\x80\x02](]" + b"\x85q\x00h\x00\x86" * 40 + b"0].")


@bomb
def deep_pickle() -> Case:
    """Lists in lists, 200,000 deep."""
    return _torch_file(b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".")


@bomb
def packed_pickle() -> Case:
    """A pickle of 80 MB in 80 KB."""
    return _torch_file(b"\x80\x02" + b"]0" * (40 << 20) + b"}.", zipfile.ZIP_DEFLATED)


@bomb
def code_in_pickle() -> Case:
    """`os.system`, in the old format."""
    pickle = b"\x80\x02cos\nsystem\n(S'true'\ntR."
    return case_of("torch-legacy", "m.pt", {"m.pt": pickle}, refuse=True)


# ---- numpy, Keras, text ----------------------------------------------------------------------


def _npy(header: str, data: bytes = b"") -> bytes:
    encoded = header.encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(encoded).to_bytes(2, "little") + encoded + data


@bomb
def npy_that_lies() -> Case:
    """A terabyte, it says."""
    array = _npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 38},), }}", bytes(64))
    return case_of("npy", "a.npy", {"a.npy": array})


@bomb
def npy_of_objects() -> Case:
    """An array of objects, which is a pickle that runs code."""
    array = _npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n.")
    return case_of("npy", "a.npy", {"a.npy": array}, refuse=True)


@bomb
def packed_npz() -> Case:
    """100 MB of zeros in 100 KB."""
    size = 25_000_000
    array = _npy(
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size},), }}", bytes(4 * size)
    )
    return case_of("npz", "a.npz", {"a.npz": _zipped({"a.npy": array}, zipfile.ZIP_DEFLATED)})


def _h5(fill: Callable[[object], None], *, refuse: bool = False) -> Case:
    import h5py

    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.weights.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return case_of("keras", "m.weights.h5", {"m.weights.h5": path.read_bytes()}, refuse=refuse)


@bomb
def h5_of_nothing() -> Case:
    """A terabyte of which no byte was ever written."""
    return _h5(lambda file: file.create_dataset("layers/a/vars/0", (1 << 38,), "<f4", chunks=True))


@bomb
def h5_packed() -> Case:
    """100 MB of zeros, compressed."""
    zeros = np.zeros(25_000_000, "<f4")
    return _h5(
        lambda file: file.create_dataset(
            "layers/a/vars/0", data=zeros, chunks=(1 << 20,), compression="gzip"
        )
    )


@bomb
def h5_external_data() -> Case:
    """A dataset whose bytes are in another file."""
    return _h5(
        lambda file: file.create_dataset(
            "layers/a/vars/0", (16,), "u1", external=[("/proc/self/status", 0, 16)]
        ),
        refuse=True,
    )


@bomb
def h5_virtual_data() -> Case:
    """A dataset put together from another file."""

    def fill(file: object) -> None:
        import h5py

        layout = h5py.VirtualLayout((4,), "<f4")
        layout[:] = h5py.VirtualSource("../secret.h5", "a", (4,))
        file.create_virtual_dataset("layers/a/vars/0", layout)  # type: ignore[attr-defined]

    return _h5(fill, refuse=True)


@bomb
def h5_external_link() -> Case:
    """A group that is in another file."""

    def fill(file: object) -> None:
        import h5py

        file["layers"] = h5py.ExternalLink("../secret.h5", "layers")  # type: ignore[index]

    return _h5(fill, refuse=True)


@bomb
def h5_loop() -> Case:
    """Groups that hold each other."""

    def fill(file: object) -> None:
        group = file.create_group("layers/a/vars")  # type: ignore[attr-defined]
        group["up"] = file["layers"]  # type: ignore[index]
        group["0"] = np.zeros(3, "<f4")

    return _h5(fill)


@bomb
def h5_diamonds() -> Case:
    """Each of 40 groups holds the next one twice."""

    def fill(file: object) -> None:
        group = file["/"]  # type: ignore[index]
        for _ in range(40):
            inner = group.create_group("a")
            group["b"] = inner
            group = inner
        group["0"] = np.zeros(3, "<f4")

    return _h5(fill)


@bomb
def word2vec_that_lies() -> Case:
    """A header of 2**40 words of 2**20 numbers."""
    return _text("v.bin", b"%d %d\nthe " % (1 << 40, 1 << 20) + bytes(4000))


@bomb
def text_header_that_lies() -> Case:
    """The same, in text."""
    return _text("v.vec", b"%d %d\nthe 1 2 3\n" % (1 << 40, 1 << 20))


@bomb
def one_long_line() -> Case:
    """A line of 300,000 numbers."""
    return _text("v.txt", b"the" + b" 1" * 300_000 + b"\nof 1\n")


@bomb
def many_short_lines() -> Case:
    """Half a million words of one number."""
    return _text("v.txt", b"a 1\n" * 250_000)


def _text(name: str, data: bytes) -> Case:
    return case_of("text", name, {name: data})


# ---- Vocabularies ----------------------------------------------------------------------------


@bomb
def vocabulary_of_one_line() -> Case:
    """An entry of a megabyte."""
    return case_of(VOCABULARY, "v.txt", {"v.txt": b"a" * (1 << 20)})


@bomb
def vocabulary_of_newlines() -> Case:
    """A million blank lines."""
    return case_of(VOCABULARY, "v.txt", {"v.txt": b"\n" * (1 << 20)})


@bomb
def vocabulary_of_returns() -> Case:
    """A million carriage returns."""
    return case_of(VOCABULARY, "v.txt", {"v.txt": b"a\r\n\r" * (1 << 18)})
