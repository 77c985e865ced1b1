"""TensorFlow's own filesystems (`tf.io.gfile`) behind the few methods that storage needs.

For machines that read `gs://` through TensorFlow and its plugin tensorflow-io-gcs-filesystem
instead of gcsfs. The only module that imports TensorFlow, and only when such a file is opened.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from torch_warmstart.errors import MissingDependencyError


class GfileFilesystem:
    """A filesystem whose paths are whole URLs."""

    async_impl = True  # as fsspec says that threads may share it: each read opens the file anew

    def __init__(self) -> None:
        _import_triton_first()
        try:
            import tensorflow as tf
        except ImportError as error:
            raise MissingDependencyError(
                "filesystem='gfile' needs TensorFlow, which is not installed, and for gs:// its "
                "plugin: pip install 'torch-warmstart[gfile]'"
            ) from error
        _import_gcs_plugin()
        self._gfile: Any = tf.io.gfile
        self._not_found: type[Exception] = tf.errors.NotFoundError

    def info(self, path: str) -> Mapping[str, int]:
        """Size and time, as fsspec calls them."""
        try:
            found = self._gfile.stat(path)
            return {"size": int(found.length), "mtime": int(found.mtime_nsec)}
        except self._not_found as error:
            raise FileNotFoundError(path) from error

    def isfile(self, path: str) -> bool:
        return bool(self._gfile.exists(path)) and not self.isdir(path)

    def isdir(self, path: str) -> bool:
        return bool(self._gfile.isdir(path))

    def ls(self, path: str, detail: bool) -> list[str]:  # noqa: ARG002  # as fsspec has it
        return [str(name) for name in self._gfile.listdir(path)]

    def cat_ranges(self, paths: list[str], starts: list[int], ends: list[int]) -> Sequence[bytes]:
        """Reads one range after the other: gfile has no concurrent reads of its own."""
        chunks = []
        for path, start, end in zip(paths, starts, ends, strict=True):
            with self._gfile.GFile(path, "rb") as file:
                file.seek(start)
                chunks.append(bytes(file.read(end - start)))
        return chunks


def _import_triton_first() -> None:
    """Keeps a later `torch.compile` alive: a Triton imported behind TensorFlow ends the process.

    TensorFlow 2.20 and newer put their LLVM where Triton's would be (tensorflow/tensorflow#124205).
    torch imports Triton by itself, as soon as an optimizer is made.
    """
    with contextlib.suppress(ImportError):
        if "tensorflow" not in sys.modules:
            import triton  # noqa: F401


def _import_gcs_plugin() -> None:
    """Registers gs:// with TensorFlow where the plugin is installed and not built in."""
    try:
        import tensorflow_io_gcs_filesystem  # noqa: F401
    except ImportError:
        return
