"""Files that people pass and that are no checkpoints: what they are, in a sentence."""

from __future__ import annotations

import re

from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import ONE_FILE
from torch_warmstart.storage import PACKED, base_name, parent, what_came_instead

_TAR = b"ustar"  # at byte 257
_EXPORTED = ("archive_format", "serialized_exported_program.json")
_NOT_READ = "which is not read: pass what it was converted from"
_TFLITE = f"is a TensorFlow Lite model, {_NOT_READ}"
# By how a file begins.
_BY_HEAD = {
    re.compile(rb"(?s)....TFL3"): _TFLITE,
    re.compile(rb"GGUF"): f"is a GGUF model of llama.cpp, {_NOT_READ}",
}
# By how its name ends.
_BY_NAME = {
    ".tflite": _TFLITE,
    ".onnx": "is an ONNX model, which is not read: pass what it was exported from",
    ".pt2": (
        "is a program that torch.export saved. Load it with torch.export.load, and pass its "
        "state_dict"
    ),
    ".msgpack": (
        "is a msgpack file, as Flax writes: load it there, and pass the mapping of names to arrays"
    ),
    ".joblib": "is a pickle, which is not read: pass the mapping of names to tensors or arrays",
}


def what_it_is(place: Place) -> str:
    """What a file of no known format is, and what to pass instead; "" if that is not known."""
    head, name = place.head(64), base_name(place.url).lower()
    if name == "saved_model.pb":
        return f"is the graph of a SavedModel: pass the folder that it is in, {parent(place.url)!r}"
    if name.endswith(".pt2") or any(n.endswith(_EXPORTED) for n in place.zip_names):
        name = ".pt2"
    told = what_came_instead(head)
    told = told or next((what for begin, what in _BY_HEAD.items() if begin.match(head)), "")
    told = told or next((what for end, what in _BY_NAME.items() if name.endswith(end)), "")
    if told or (told := _json(place, head)):
        return told
    archive = _archive(place, head)
    return f"is {archive}" if archive else ""


def _json(place: Place, head: bytes) -> str:
    """A text of JSON: a configuration, or the answer of a server that has no such file."""
    if not head.lstrip().startswith((b"{", b"[")) or b"\0" in place.head(4096):
        return ""
    return (
        "is a text of JSON, a configuration or what a server answers, and lists no files of "
        "weights: pass the file that has them"
    )


def whose_folder_it_is(place: Place) -> str:
    """What a folder of no known format holds; "" if that is not known."""
    if "meta_info" in place.names and not any(n.endswith(".index") for n in place.names):
        return (
            "holds meta_info, as SparseOperationKit writes it beside its tables, which are not "
            "read: export their keys and rows as arrays"
        )
    return ""


def _archive(place: Place, head: bytes) -> str:
    """An archive of whatever kind, with the file in it that would be read, if its list tells."""
    inside = [name for name in place.zip_names if name.lower().endswith((*ONE_FILE, ".tar"))]
    if inside:
        more = f" (it has {len(inside)} such files)" if inside[1:] else ""
        return (
            f"a zip archive with {inside[0]!r} in it{more}: unpack it, and pass the file that is "
            "meant"
        )
    if place.zip_names:
        return "a zip archive without a file of a known format in it"
    by = next((name for magic, name in PACKED.items() if head.startswith(magic)), "")
    if by:
        return (
            f"compressed by {by}, as .vec.gz, .tar.gz and .nemo are, and checkpoints and tables of "
            "vectors are read where they lie: unpack it, and pass the file within"
        )
    if place.head(262)[257:] == _TAR:
        first = place.head(100).split(b"\0")[0].decode(errors="replace")
        return f"a tar archive that begins with {first!r}: unpack it, and pass the file within"
    return ""
