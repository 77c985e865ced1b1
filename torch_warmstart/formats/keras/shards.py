"""Weights that Keras 3 saved in several files (`max_shard_size=`), with an index beside them.

`model.weights.json` says in its `weight_map` which files hold the variables of which folder. A
folder's variables may be in two files, and what is written about it in either.

Source: keras `saving/saving_lib.py`, `ShardedH5IOStore`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch_warmstart.errors import CorruptCheckpointError
from torch_warmstart.formats.keras import hdf5
from torch_warmstart.formats.keras.file import KerasCheckpoint
from torch_warmstart.formats.place import Place
from torch_warmstart.storage import ByteSource, below, parent

WeightMap = Mapping[str, Sequence[str]]  # the files of each folder of variables


def open_shards(place: Place, weight_map: WeightMap) -> KerasShards:
    """Opens the files that an index lists; raises CorruptCheckpointError, and as they do."""
    names = sorted({name for found in weight_map.values() for name in found})
    sources: dict[str, ByteSource] = {}
    try:
        for name in names:
            url = below(parent(place.url), name)
            with place.storage.named_by(place.url, url):
                shard = Place(url, place.storage)
                if not shard.is_file:
                    raise FileNotFoundError(url)
                sources[name] = shard.source
        return KerasShards(place.url, sources, weight_map)
    except BaseException:
        for source in sources.values():
            source.close()
        raise


class KerasShards(KerasCheckpoint):
    """Several HDF5 files, whose groups are one file's."""

    format = "Keras weights in several files"

    def __init__(self, url: str, sources: Mapping[str, ByteSource], weight_map: WeightMap) -> None:
        """Reads the names and shapes of all tensors of all files; raises as KerasCheckpoint."""
        trees = {name: hdf5.read_tree(source) for name, source in sources.items()}
        for folder, names in weight_map.items():
            lost = [name for name in names if folder.strip("/") not in trees[name].texts]
            if lost:
                raise CorruptCheckpointError(f"{url} says that {folder!r} is in {lost[0]}: not so.")
        self._shards = tuple(sources.values())
        self._shard_of: dict[str, ByteSource] = {}
        for name, tree in trees.items():
            for dataset in tree.datasets:
                if dataset.path in self._shard_of:
                    raise CorruptCheckpointError(f"{url}: {dataset.path!r} is in two files.")
                self._shard_of[dataset.path] = sources[name]
        super().__init__(url, self._shards[0], tree=_together(list(trees.values())))

    def _source_of(self, dataset: hdf5.Dataset) -> ByteSource:
        return self._shard_of[dataset.path]

    def _close(self) -> None:
        for source in self._shards:
            source.close()


def _together(trees: Sequence[hdf5.Tree]) -> hdf5.Tree:
    """As if it were one file, in which no two datasets are at one address."""
    datasets = [
        replace(dataset, address=dataset.address * len(trees) + number)
        for number, tree in enumerate(trees)
        for dataset in tree.datasets
    ]
    texts: dict[str, hdf5.Texts] = {}
    for tree in trees:
        for group, said in tree.texts.items():
            texts[group] = {**texts.get(group, {}), **said}
    return hdf5.Tree(tuple(datasets), texts)
