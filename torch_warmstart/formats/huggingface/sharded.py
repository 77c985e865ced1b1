"""Directories as Hugging Face's `save_pretrained` writes them: one file, or shards and their index.

`model.safetensors.index.json` (or `pytorch_model.bin.index.json`) says in its `weight_map` which
shard holds which tensor. Shards are opened when one of their tensors is asked for. Where a
directory has both kinds, its safetensors are taken, as Hugging Face does.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from torch_warmstart.errors import CorruptCheckpointError, SettingsError
from torch_warmstart.formats import recognise
from torch_warmstart.formats.base import Block, Checkpoint, Family, TensorLocation, TensorSpec
from torch_warmstart.formats.families import FAMILY_WORDS, family_of
from torch_warmstart.formats.huggingface import safetensors
from torch_warmstart.formats.huggingface.optimizers import with_optimizers
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import WEIGHT_MAP
from torch_warmstart.formats.sources import OpenOnce
from torch_warmstart.formats.strangers import what_it_is
from torch_warmstart.storage import below, join, parent

# Accelerate's second model, and so on.
_NEXT_MODEL = re.compile(r"(model|pytorch_model)_\d{1,4}\.(safetensors|bin)")
_OF_KERAS = re.compile(r"/(.+/)?vars", re.DOTALL)  # folders of variables
_SAFETENSORS = ".safetensors"
_MAX_INDEX = 64 << 20  # bytes


def open_directory(place: Place) -> Checkpoint:
    """Opens the best file in a directory."""
    names = recognise.huggingface_weights(place.names)
    if len(names) != 1:
        raise SettingsError(
            f"{place.url} holds {', '.join(names) or 'no weights'}: pass the file that is meant."
        )
    inside = Place(join(place.url, names[0]), place.storage, verify=place.verify)
    weights = open_index(inside) if names[0].endswith(".json") else _open_file(inside)
    weights.models_beside = tuple(name for name in place.names if _NEXT_MODEL.fullmatch(name))
    opened = with_optimizers(weights, place)
    opened.directory = place.url
    return opened


def open_index(place: Place) -> Checkpoint:
    """Opens the shards that an index lists; those of Keras are files of another kind."""
    weight_map = _read_weight_map(place)
    if _is_of_keras(weight_map):
        from torch_warmstart.formats.keras import open_shards

        return open_shards(place, weight_map)
    return ShardedCheckpoint(place, {key: name for key, (name,) in weight_map.items()})


class ShardedCheckpoint(Checkpoint):
    """Tensors in several files, and which is where."""

    format = "sharded Hugging Face checkpoint"

    def __init__(self, place: Place, weight_map: Mapping[str, str]) -> None:
        """Opens nothing yet.

        Args:
            place: The index.
            weight_map: What it says: key to the name of its shard.
        """
        self.url: str = place.url
        self._place = place
        self._map = weight_map
        self._shards = OpenOnce[Checkpoint]()
        self._first_to_say: list[tuple[str, str]] = []  # a shard, and whose it says it is

    @functools.cached_property
    def family(self) -> Family:  # type: ignore[override]  # which nobody sets
        """As of one file: by the header of the first shard that says it, else by all names.

        Other shards than the first are asked only where the names alone are not torch's.
        """
        by_names = family_of(self._map)
        for name in dict.fromkeys(self._map.values()):
            shard = self._shard(name) if name.endswith(_SAFETENSORS) else None
            said = getattr(shard, "said_format", None)
            if said is not None:
                return family_of(self._map, said)
            if by_names == "torch":
                break
        return by_names

    def __iter__(self) -> Iterator[str]:
        return iter(self._map)

    def _find(self, key: str) -> TensorSpec | None:
        name = self._map.get(key)
        if name is None:
            return None
        spec: TensorSpec | None = self._shard(name).get(key)
        if spec is None:
            raise CorruptCheckpointError(
                f"{self.url} says that tensor {key!r} is in {name}, which does not have it."
            )
        storage = None if spec.storage is None else (name, spec.storage)
        return replace(spec, storage=storage)

    def location(self, key: str) -> TensorLocation:
        self.spec(key)
        return TensorLocation((self._map[key],))

    def prefetch(self, keys: Sequence[str]) -> None:
        by_shard: dict[str, list[str]] = {}
        for key in keys:
            self.spec(key)  # that its shard has it
            by_shard.setdefault(self._map[key], []).append(key)
        for name, inside in by_shard.items():
            self._shard(name).prefetch(inside)

    def verify(self, key: str) -> None:
        self.spec(key)
        self._shard(self._map[key]).verify(key)

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> Any:
        return self._shard(self._map[spec.key]).view_tensor(spec.key, rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        return self._shard(self._map[spec.key]).row_blocks(spec.key, rows)

    def _shard(self, name: str) -> Checkpoint:
        return self._shards.get(name, lambda: self._open_shard(name))

    def _open_shard(self, name: str) -> Checkpoint:
        url = below(parent(self.url), name)
        with self._place.storage.named_by(self.url, url):
            shard = _open_file(Place(url, self._place.storage))
        self._check_said(name, getattr(shard, "said_format", None))
        return shard

    def _check_said(self, name: str, said: str | None) -> None:
        """Raises CorruptCheckpointError if shards say that different frameworks wrote them."""
        if said is None or said not in FAMILY_WORDS.values():
            return
        self._first_to_say.append((name, said))
        other, was = self._first_to_say[0]
        if said != was:
            raise CorruptCheckpointError(
                f"{self.url}: {other} says format={was!r}, and {name} says {said!r}. They are "
                "parts of different checkpoints, or one was written anew."
            )

    def _close(self) -> None:
        self._shards.close()


def _read_weight_map(place: Place) -> dict[str, list[str]]:
    """What is in which files, each of which is known to stay in the directory.

    Hugging Face's has a key and a name; Keras's a folder, and a name or several.
    """
    source = place.source
    if source.size > _MAX_INDEX:
        raise CorruptCheckpointError(
            f"{place.url} has {source.size:,} bytes, too many for an index of shards."
        )
    try:
        index = json.loads(source.read(0, source.size).tobytes())
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"{place.url} is not JSON: {error}.") from error
    found = index.get(WEIGHT_MAP) if isinstance(index, dict) else None
    if not isinstance(found, dict) or not _is_weight_map(found):
        raise CorruptCheckpointError(
            f"{place.url} has no {WEIGHT_MAP} of tensor names to file names."
        )
    listed = {key: names if isinstance(names, list) else [names] for key, names in found.items()}
    for name in {name for names in listed.values() for name in names}:
        below(parent(place.url), name)
    return listed


def _is_of_keras(keys: Collection[str]) -> bool:
    return bool(keys) and all(map(_OF_KERAS.fullmatch, keys))


def _is_weight_map(found: Mapping[str, object]) -> bool:
    """Whether each key has a name, or of Keras's names."""
    if not _is_of_keras(found):
        return all(isinstance(name, str) for name in found.values())
    listed = (names if isinstance(names, list) else [names] for names in found.values())
    return all(names and all(isinstance(name, str) for name in names) for names in listed)


def _open_file(place: Place) -> Checkpoint:
    """A shard, or a file that is the whole checkpoint."""
    if not place.is_file:
        raise FileNotFoundError(place.url)
    if recognise.safetensors(place) is None:
        return safetensors.open_place(place)
    if recognise.torch_zip(place) is None or recognise.torch_legacy(place) is None:
        from torch_warmstart.formats.torch import open_file

        return open_file(place)
    if recognise.hdf5(place) is None:
        from torch_warmstart.formats.keras import open_place

        return open_place(place)
    what = what_it_is(place) or "is neither a safetensors file nor a torch file"
    raise CorruptCheckpointError(f"{place.url} {what}.")
