"""Keras files: HDF5 of Keras 2 and 3 (`.h5`, `.hdf5`, `.weights.h5`), and `.keras` archives.

Other HDF5 files open too: their keys are the paths of their datasets. Whose names and layouts those
follow is then read from the names, as of numpy's files: people keep state dicts in HDF5 as well.

Keys are the variables' names where the file has them (Keras 2: `dense/kernel`), else the paths in
the file (`layers/dense/vars/0`), and names that are worked out are offered beside them. So are
optimizer variables, under the paths in the file.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from torch_warmstart.computing import on_cpu
from torch_warmstart.dtypes import take_rows
from torch_warmstart.entries import Vocabulary, vocabularies_of
from torch_warmstart.errors import CorruptCheckpointError, UnsupportedError
from torch_warmstart.formats.arrays import ZipMembers, tensor_of_bytes
from torch_warmstart.formats.base import (
    Block,
    Checkpoint,
    Family,
    GraphOptimizer,
    NameKind,
    SavedLayer,
    TensorSpec,
)
from torch_warmstart.formats.families import family_of
from torch_warmstart.formats.keras import hdf5
from torch_warmstart.formats.keras.configs import read_configs, with_activations
from torch_warmstart.formats.keras.folders import LayerFolder, layer_folders
from torch_warmstart.formats.keras.lookups import (
    lookups_in_folders,
    lookups_in_model,
    lookups_of_features,
)
from torch_warmstart.formats.keras.names import (
    OtherNames,
    is_of_keras,
    keras2_names,
    keras2_weights,
    keras3_names,
    storage_keys,
)
from torch_warmstart.formats.keras.optimizers import find_optimizer
from torch_warmstart.formats.keras.saved_layers import Writer, keras2_layers, keras3_layers
from torch_warmstart.formats.place import Place
from torch_warmstart.formats.recognise import KERAS_WEIGHTS
from torch_warmstart.formats.rows import read_rows
from torch_warmstart.storage import ByteSource

_CONFIG, _METADATA = "config.json", "metadata.json"
_LESS_THAN_OWN: tuple[NameKind, ...] = ("short", "storage")
_MAX_JSON = 256 << 20  # bytes
_MAX_ASSET = 4 << 30


def open_place(place: Place) -> KerasCheckpoint:
    """Opens an HDF5 file."""
    return KerasCheckpoint(place.url, place.source)


def open_archive(place: Place) -> KerasArchive:
    """Opens a `.keras` file."""
    return KerasArchive(place.url, ZipMembers(place.source))


class KerasCheckpoint(Checkpoint):
    """An HDF5 file, or one in an archive."""

    format = "Keras HDF5 file"
    family: Family = "tensorflow"

    def __init__(
        self, url: str, source: ByteSource, config: Any = None, tree: hdf5.Tree | None = None
    ) -> None:
        """Reads the names and shapes of all tensors.

        Args:
            url: Where the file is, for messages.
            source: The HDF5 file.
            config: The model's `config.json`, if there is one.
            tree: What is in it, if that was read already.

        Raises:
            CorruptCheckpointError: it is damaged, or claims more than it holds.
            UnsupportedError: it points at other files.
            MissingDependencyError: h5py is not installed.
        """
        self.url: str = url
        self._source, self._config = source, config
        self._tree = hdf5.read_tree(source) if tree is None else tree
        if not is_of_keras(self._tree):
            self.family = family_of(dataset.path for dataset in self._tree.datasets)
        keys, self._other_names = keras2_names(self._tree)
        self._datasets: dict[str, hdf5.Dataset] = {}
        for dataset in self._tree.datasets:
            key = keys.get(dataset.path, dataset.path.removesuffix(":0"))
            if key in self._datasets:  # `a` beside `a:0`, or a name that is another's path
                key = dataset.path
            self._datasets[key] = dataset

    def __iter__(self) -> Iterator[str]:
        return iter(self._datasets)

    def _find(self, key: str) -> TensorSpec | None:
        dataset = self._datasets.get(key)
        if dataset is None:
            return None
        stored = dataset.marked or str(dataset.dtype or "of HDF5's own")
        return TensorSpec(key, dataset.shape, dataset.torch_dtype, stored, dataset.address)

    def full_names(self) -> Mapping[str, tuple[str, ...]]:
        return self._full_names

    def keys_of(self, name: str) -> tuple[str, ...]:
        found = self._full_names.get(name, ())
        distinct = {self._datasets[key].address: key for key in reversed(found)}
        return tuple(reversed(distinct.values()))

    def layer_of(self, key: str) -> SavedLayer | None:
        return self._layers.get(key)

    @functools.cached_property
    def _layers(self) -> Mapping[str, SavedLayer]:
        keys = {dataset.path: key for key, dataset in self._datasets.items()}
        about = self._tree.texts.get("", {})
        told = (about, self._tree.texts.get("model_weights", {}))
        backend, version = (
            next((text for texts in told for text in texts.get(name, ())), "")
            for name in ("backend", "keras_version")
        )
        weights = [(path, layer) for path, layer, _ in keras2_weights(self._tree)]
        layers = keras3_layers(self._folders, keys)
        config = with_activations(self._told_config)
        return {**layers, **keras2_layers(weights, config, Writer(backend, version), keys)}

    @functools.cached_property
    def _told_config(self) -> Any:
        return _model_config(self.url, self._tree.texts.get("", {}))

    @functools.cached_property
    def _folders(self) -> list[LayerFolder]:
        config = with_activations(self._config)
        return layer_folders(self._tree, read_configs(config, self._tree))

    @on_cpu
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        return vocabularies_of(lookups_in_model(self._told_config), self.url)

    def name_kind(self, name: str) -> NameKind:
        return self._kinds.get(name, "own")

    @functools.cached_property
    def _full_names(self) -> Mapping[str, tuple[str, ...]]:
        short = self._other("short")
        free = {name: keys for name, keys in short.items() if name not in self._datasets}
        return {**free, **self._other("storage"), **self._other("own")}

    @functools.cached_property
    def _kinds(self) -> Mapping[str, NameKind]:
        """Of names that are not simply what a tensor is called."""
        own = self._other("own").keys() | (self._datasets.keys() - self._other("short").keys())
        found: dict[str, NameKind] = {}
        for kind in _LESS_THAN_OWN:
            found.update(dict.fromkeys(self._other(kind).keys() - own, kind))
        found.update(dict.fromkeys(storage_keys(self._folders) & self._datasets.keys(), "storage"))
        return found

    def _other(self, kind: NameKind) -> Mapping[str, tuple[str, ...]]:
        """Names of a kind besides the keys, with the keys that each is for."""
        found: dict[str, tuple[str, ...]] = {}
        for key, dataset in self._datasets.items():
            for name in getattr(self._others.get(dataset.path, OtherNames()), kind):
                found[name] = (*found.get(name, ()), key)
        return found

    @functools.cached_property
    def _others(self) -> Mapping[str, OtherNames]:
        return keras3_names(self._folders) | self._other_names

    def _read(self, spec: TensorSpec, rows: torch.Tensor | None) -> torch.Tensor:
        dataset = self._datasets[spec.key]
        if dataset.refusal:
            raise UnsupportedError(f"{self.url}: tensor {spec.key!r}: {dataset.refusal}.")
        assert dataset.dtype is not None  # others were refused as not for torch
        assert spec.dtype is not None
        if not spec.numel:
            tensor = torch.empty(spec.shape, dtype=spec.dtype)
        elif dataset.offset is None:
            array = hdf5.read_dataset(self._source_of(dataset), dataset, rows)
            return torch.from_numpy(array.view(_bits(array.dtype))).view(spec.dtype)
        else:
            tensor = self._view(dataset, dataset.offset, rows).view(spec.dtype)
        return tensor if rows is None else take_rows(tensor, rows)

    def _row_blocks(self, spec: TensorSpec, rows: torch.Tensor) -> Sequence[Block]:
        dataset = self._datasets[spec.key]
        if dataset.refusal or dataset.offset is None or spec.dtype is None:
            return super()._row_blocks(spec, rows)
        return [(0, self._view(dataset, dataset.offset, rows).view(spec.dtype))]

    def _view(self, dataset: hdf5.Dataset, offset: int, rows: torch.Tensor | None) -> torch.Tensor:
        """The tensor on top of the file; with `rows`, only those need to be there."""
        assert dataset.dtype is not None
        if rows is None or not dataset.shape:
            raw = self._source_of(dataset).read(offset, dataset.nbytes)
        else:
            row_bytes = dataset.nbytes // dataset.shape[0]
            source = self._source_of(dataset)
            raw = read_rows(source, offset, dataset.nbytes, row_bytes, rows)
        return tensor_of_bytes(raw, _bits(dataset.dtype), dataset.shape)

    def _source_of(self, dataset: hdf5.Dataset) -> ByteSource:
        """The file that a dataset is in."""
        del dataset
        return self._source

    def _close(self) -> None:
        self._source.close()


class KerasArchive(KerasCheckpoint):
    """A `.keras` file: the weights as HDF5, and beside them what each layer is called."""

    format = "Keras archive"
    has_checksums = True

    def __init__(self, url: str, members: ZipMembers) -> None:
        """Opens the weights; see `KerasCheckpoint`."""
        if KERAS_WEIGHTS not in members.infos:
            raise CorruptCheckpointError(
                f"{url} is no Keras archive: no {KERAS_WEIGHTS} in the zip."
            )
        self._members, self._verified = members, False
        metadata = _read_json(url, members, _METADATA)
        self._metadata = metadata if isinstance(metadata, dict) else {}
        super().__init__(url, members.open(KERAS_WEIGHTS), _read_json(url, members, _CONFIG))

    @on_cpu
    def vocabularies(self) -> Mapping[str, Vocabulary]:
        of_layers = lookups_in_folders(read_configs(self._config, self._tree))
        found = [*of_layers, *lookups_of_features(self._config)]
        return vocabularies_of(found, self.url, self._read_asset)

    def _read_asset(self, name: str) -> bytes | None:
        info = self._members.infos.get(name)
        if info is None:
            return None
        if info.file_size > _MAX_ASSET:
            text = f"{self.url}: its {name} claims {info.file_size:,} bytes."
            raise CorruptCheckpointError(text)
        self._members.verify(name)
        return self._members.open(name).read(0, info.file_size).tobytes()

    def graph_optimizers(self) -> Sequence[GraphOptimizer]:
        if not str(self._metadata.get("keras_version")).startswith("3."):
            return ()
        found = find_optimizer(self._folders, self._config)
        return () if found is None or not self._has_all(found) else (found,)

    def _has_all(self, found: GraphOptimizer) -> bool:
        """Whether paths in the file are keys, as they are in every file that Keras wrote."""
        slots = (key for slots in found.slots.values() for key in slots.values())
        return {*found.slots, *found.attributes.values(), *slots} <= self._datasets.keys()

    def verify(self, key: str) -> None:
        self.spec(key)
        if not self._verified:  # one checksum stands for all tensors
            self._members.verify(KERAS_WEIGHTS)
            self._verified = True


def _bits(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype to see elements as: bfloat16, which numpy lacks, is two bytes of any kind."""
    return np.dtype(np.int16) if dtype.kind == "V" else dtype


def _model_config(url: str, about: hdf5.Texts) -> Any:
    """The configuration that a whole model's HDF5 file of Keras 2 has, or None."""
    text = next(iter(about.get("model_config", ())), None)
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"{url}: its model_config is no JSON: {error}.") from error


def _read_json(url: str, members: ZipMembers, name: str) -> Any:
    """What describes the model; names are worked out without it if it is not there."""
    if name not in members.infos:
        return None
    size = members.infos[name].file_size
    if size > _MAX_JSON:
        raise CorruptCheckpointError(f"{url}: its {name} claims {size:,} bytes.")
    try:
        return json.loads(members.open(name).read(0, size).tobytes())
    except (ValueError, RecursionError) as error:
        raise CorruptCheckpointError(f"{url}: its {name} is no JSON: {error}.") from error
