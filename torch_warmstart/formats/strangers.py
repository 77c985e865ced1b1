"""Files that people pass and that are no checkpoints: what they are, in a sentence."""

from __future__ import annotations

from torch_warmstart.formats.place import Place
from torch_warmstart.storage import base_name, parent

_LFS = b"version https://git-lfs.github.com/spec/"
_TFLITE = b"TFL3"  # at byte 4
_EXPORTED = ("archive_format", "serialized_exported_program.json")


def what_it_is(place: Place) -> str:
    """What a file of no known format is, and what to pass instead; "" if that is not known."""
    head, name = place.head(64), base_name(place.url).lower()
    if head.startswith(_LFS):
        return "is a Git LFS pointer, not the file it stands for: fetch that with `git lfs pull`"
    if name == "saved_model.pb":
        return f"is the graph of a SavedModel: pass the folder that it is in, {parent(place.url)!r}"
    if head[4:8] == _TFLITE or name.endswith(".tflite"):
        return "is a TensorFlow Lite model, which is not read: pass what it was converted from"
    if name.endswith(".onnx"):
        return "is an ONNX model, which is not read: pass what it was exported from"
    if name.endswith(".pt2") or any(n.endswith(_EXPORTED) for n in place.zip_names):
        return (
            "is a program that torch.export saved. Load it with torch.export.load, and pass its "
            "state_dict"
        )
    return ""
