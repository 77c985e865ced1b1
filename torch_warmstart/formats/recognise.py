"""What tells a format: first bytes, names in a directory or a zip, TensorFlow's names of files.

A sniffer returns None if a place is of its format, else why not; `registry` asks them in its order.
None needs a reader of any format; only tables of words are looked at by their own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from torch_warmstart.formats.place import Place
from torch_warmstart.storage import HDF5, NPY, ByteSource, Storage, base_name, is_signed

# -- torch ---------------------------------------------------------------------------------------

DCP_METADATA = ".metadata"
PICKLE_MAGIC = b"\x80"
NO_TABLE = "does not end as an SSTable does"


def torch_distributed(place: Place) -> str | None:
    """Whether it is a directory with metadata, or that file in it."""
    if place.is_directory:
        return None if DCP_METADATA in place.names else f"no {DCP_METADATA} in the directory"
    found = base_name(place.url) == DCP_METADATA and place.is_file
    return None if found else f"not a directory with a file {DCP_METADATA}"


def torch_zip(place: Place) -> str | None:
    """Whether a file is a zip as torch.save writes since 1.6."""
    return _zip_with(place, "data.pkl", "no data.pkl in the zip")


def torch_legacy(place: Place) -> str | None:
    """Whether a file begins as a pickle does."""
    return None if place.head(1) == PICKLE_MAGIC else "does not begin as a pickle does"


# How names of checkpoints end that are one file, in a folder or an archive that is none.
ONE_FILE = (
    *(".pt", ".pth", ".bin", ".ckpt", ".th"),
    *(".safetensors", ".h5", ".keras", ".npz", ".npy"),
)


# -- Hugging Face --------------------------------------------------------------------------------

SAFETENSORS_LENGTH = 8  # bytes of the little-endian length before the JSON header
WEIGHT_MAP = "weight_map"
_INDEX_HEAD = 64 << 10  # bytes in which `weight_map` begins

# In this order. Each is the name that models, then diffusers' models, then adapters have.
_WANTED = tuple(
    re.compile(rf"(?:{stems})\.{ending}")
    for stems, ending in (
        ("model|diffusion_pytorch_model|adapter_model", r"safetensors"),
        ("model|diffusion_pytorch_model|adapter_model", r"safetensors\.index\.json"),
        (r".+", r"safetensors\.index\.json"),
        ("pytorch_model|diffusion_pytorch_model|adapter_model", r"bin"),
        ("pytorch_model|diffusion_pytorch_model|adapter_model", r"bin\.index\.json"),
        (r".+", r"bin\.index\.json"),
        ("tf_model", r"h5"),  # of transformers before 5, which wrote TensorFlow's too
    )
)


def huggingface_directory(place: Place) -> str | None:
    """Whether a directory holds weights under a name of `save_pretrained`."""
    if not place.is_directory:
        return "not a directory"
    found = huggingface_weights(place.names)
    return None if found else "no model.safetensors, pytorch_model.bin, tf_model.h5 or index"


def huggingface_weights(names: Sequence[str]) -> list[str]:
    """Of the names in a directory those of the best kind there is; safetensors come first."""
    kinds = ([name for name in names if wanted.fullmatch(name)] for wanted in _WANTED)
    return next(filter(None, kinds), [])


def huggingface_index(place: Place) -> str | None:
    """Whether a file begins as an index of shards does."""
    found = place.head(16).lstrip()[:1] == b"{" and WEIGHT_MAP.encode() in place.head(_INDEX_HEAD)
    return None if found else f"no JSON with a {WEIGHT_MAP}"


def safetensors(place: Place) -> str | None:
    """Whether a file begins with a JSON header of a length that fits."""
    head = place.head(SAFETENSORS_LENGTH + 1)
    if len(head) <= SAFETENSORS_LENGTH or head[-1:] != b"{":
        return "no JSON header"
    length = int.from_bytes(head[:SAFETENSORS_LENGTH], "little")
    return None if length <= place.source.size else "its header would be longer than the file"


# -- Keras and numpy -----------------------------------------------------------------------------

KERAS_WEIGHTS = "model.weights.h5"
NPY_SUFFIX = ".npy"


def hdf5(place: Place) -> str | None:
    """Whether a file begins as HDF5 does."""
    return _begins_with(place, HDF5, "no HDF5 magic bytes")


def keras_archive(place: Place) -> str | None:
    """Whether a file is a zip with a model's weights in it."""
    if not place.zip_names:
        return "not a complete zip file"
    return None if KERAS_WEIGHTS in place.zip_names else f"no {KERAS_WEIGHTS} in the zip"


def npy(place: Place) -> str | None:
    """Whether a file begins with numpy's magic bytes."""
    return _begins_with(place, NPY, "no numpy magic bytes")


def npz(place: Place) -> str | None:
    """Whether a file is a zip with an array in it."""
    return _zip_with(place, NPY_SUFFIX, "no .npy in the zip")


# -- tables by their ids ---------------------------------------------------------------------------

NO_DYNAMICEMB = "no files such as table_emb_keys.rank_0.world_size_1"
NO_TFRA = "no files such as table_mht_1of1_rank0_size1-keys and -values"
TFRA_KEYS = "-keys"
HUGECTR_KEYS, HUGECTR_VALUES = HUGECTR = ("key", "emb_vector")  # files of a table


def hugectr(place: Place) -> str | None:
    """Whether a directory is a table's."""
    return None if set(HUGECTR) <= set(place.names) else f"no files {' and '.join(HUGECTR)}"


def dynamicemb(place: Place) -> str | None:
    """Whether a directory may hold keys of a rank."""
    found = any("_emb_keys.rank_" in name for name in place.names)
    return None if found else NO_DYNAMICEMB


def tfra(place: Place) -> str | None:
    """Whether a directory may hold keys with values beside them."""
    return None if any(name.endswith(TFRA_KEYS) for name in place.names) else NO_TFRA


# -- TensorFlow ----------------------------------------------------------------------------------

STATE_FILE = "checkpoint"
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
TABLE_FOOTER = 48  # bytes at the end of a table, of which the magic ones are the last
_FILE_OF_PREFIX = re.compile(r"(.*)\.(?:index|meta|data-\d{5}-of-\d{5})", re.DOTALL)
_TEXT_HEAD = 4096  # bytes


def table(place: Place) -> str | None:
    """Whether it may be a V1 checkpoint: a table, the `.meta` of one, or no file but a pattern."""
    is_other = place.is_file and not place.url.endswith(".meta") and not is_table(place.source)
    return NO_TABLE if is_other else None


def is_table(source: ByteSource) -> bool:
    """True if the file ends as a sorted string table does."""
    if source.size < TABLE_FOOTER:
        return False
    end = source.read(source.size - len(TABLE_MAGIC), len(TABLE_MAGIC)).tobytes()
    return end == TABLE_MAGIC


def no_index(place: Place) -> str:
    """Why a path is no V2 checkpoint, whose prefix is no file of its own."""
    return f"no {base_name(place.url)}.index"


def may_have_others(place: Place) -> bool:
    """Whether others are looked for beside a path: by a part's name, or where no file is."""
    is_part = base_name(place.url) == STATE_FILE or _FILE_OF_PREFIX.fullmatch(place.url) is not None
    return is_part or not place.is_file


def stands_for_others(url: str, storage: Storage) -> bool:
    """Whether a path is a prefix, one of its files or a state file, whatever bytes are in it."""
    return own_prefix(url, storage) is not None or is_state_file(url, storage)


def is_state_file(url: str, storage: Storage) -> bool:
    """Anything may be called `checkpoint`, a V1 file too; a state file is text."""
    if base_name(url) != STATE_FILE or not storage.exists(url):
        return False
    source = storage.open(url)
    return b"\0" not in source.read(0, min(source.size, _TEXT_HEAD)).tobytes()


def own_prefix(url: str, storage: Storage) -> str | None:
    """The prefix that a path is, or that it is a file of; None if it is neither."""
    if is_prefix(url, storage):
        return url
    match = _FILE_OF_PREFIX.fullmatch(url)
    prefix = prefix_of(match[1]) if match else None
    return prefix if prefix and is_prefix(prefix, storage) else None


def prefix_of(stem: str) -> str:
    """The prefix that files begin with; it may be all folder: that of `.index` is `./`."""
    return stem or "./"


def is_prefix(url: str, storage: Storage) -> bool:
    """Whether a V2 checkpoint is called so."""
    return not is_signed(url) and storage.exists(url + ".index")


# -- tables that keep their ids ------------------------------------------------------------------

SHARD = re.compile(r"(?P<base>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_INDEXED = (".safetensors", ".bin", ".pt", ".pth")
_BUNDLES = ".data"  # TensorFlow's own files of values are numbered alike


def numbered(place: Place) -> str | None:
    """Whether it may be Monolith's: a file called `table-00000-of-00004`, or a folder of such."""
    found = any(map(is_numbered, [base_name(place.url)] if place.is_file else place.names))
    return None if found else "no file such as table-00000-of-00004"


def is_numbered(name: str) -> bool:
    """Whether a file's name says that it is one of so many."""
    found = SHARD.fullmatch(name)
    return found is not None and not found["base"].endswith(_BUNDLES)


def indexed_shard(name: str) -> tuple[str, int] | None:
    """Of a file whose name says that it is one of several with an index: the index, how many.

    Hugging Face's: model-00001-of-00002.safetensors is listed in model.safetensors.index.json.
    """
    stem, ending = os.path.splitext(name)
    found = SHARD.fullmatch(stem) if ending in _INDEXED else None
    return found and (f"{found['base']}{ending}.index.json", int(found["count"]))


def _begins_with(place: Place, magic: bytes, otherwise: str) -> str | None:
    return None if place.head(len(magic)) == magic else otherwise


def _zip_with(place: Place, ending: str, otherwise: str) -> str | None:
    if not place.zip_names:
        return "not a complete zip file"
    return None if any(name.endswith(ending) for name in place.zip_names) else otherwise
