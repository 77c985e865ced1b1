"""A checkpoint's tensors as a table, and what it holds besides: optimizers, vocabularies, the rest.

A checkpoint is `Any` here, because what checkpoints are made of shows itself by this.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field
from typing import TYPE_CHECKING, Any

from torch_warmstart.display import VERSION, Shown
from torch_warmstart.errors import listed, plural
from torch_warmstart.formats.listing.tensors import COLUMNS, TensorRow, by_dtype, row_of
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.display import Sheet

_MOST_BESIDES = 40


@frozen
class Listing(Shown):
    """Some or all tensors of a checkpoint, and what is beside them."""

    url: str
    format: str
    rows: tuple[TensorRow, ...]
    optimizers: tuple[Mapping[str, Any], ...] = ()
    vocabularies: Mapping[str, int] = field(default_factory=dict)  # name: rows
    tables: Mapping[str, int] = field(default_factory=dict)  # of keys and values: entries
    besides: Mapping[str, str] = field(default_factory=dict)  # what is no tensor, by path
    beside: tuple[str, ...] = ()  # what other files say, where somebody has looked

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes, with `version` and `totals`."""
        return {
            "version": VERSION,
            "kind": "checkpoint",
            "url": self.url,
            "format": self.format,
            "tensors": [asdict(row) for row in self.rows],
            "optimizers": [dict(optimizer) for optimizer in self.optimizers],
            "vocabularies": dict(self.vocabularies),
            "tables": dict(self.tables),
            "besides": dict(self.besides),
            "beside": list(self.beside),
            "totals": {
                "tensors": len(self.rows),
                "elements": sum(row.elements for row in self.rows),
                "bytes": sum(row.bytes for row in self.rows),
                "by_dtype": by_dtype(self.rows),
            },
        }

    def _sheet(self) -> Sheet:
        from torch_warmstart.display import Entry, Sheet

        return Sheet(
            f"{self.url}: {self.format}",
            COLUMNS,
            tuple(Entry(row.cells) for row in self.rows),
            self._totals(),
            noun="tensor",
            reasons="file",
            right=frozenset({"bytes", "slices"}),
            remarks=tuple(self._remarks()),
            state="dtype",
            folds=False,
        )

    def __str__(self) -> str:
        return self._sheet().as_text()

    def _totals(self) -> str:
        size = sum(row.bytes for row in self.rows)
        counts = {name: total["elements"] for name, total in by_dtype(self.rows).items()}
        most = sorted(counts.items(), key=lambda item: -item[1])
        listed = ", ".join(f"{count:,} {dtype}" for dtype, count in most)
        elements = plural(sum(counts.values()), "element")
        total = f"{plural(len(self.rows), 'tensor')}, {elements}, {plural(size, 'byte')}"
        return total + (f": {listed}" if len(counts) > 1 else "")

    def _remarks(self) -> Iterator[str]:
        for optimizer in self.optimizers:
            slots = optimizer["slots"]
            kept = f": {listed(slots)}" if slots else ""
            parameters = plural(optimizer["parameters"], "parameter")
            yield f"Optimizer {optimizer['path'] or '(its root)'}: state of {parameters}{kept}"
        yield from (
            f"Vocabulary {name}: {plural(count, 'row')}"
            for name, count in self.vocabularies.items()
        )
        yield from (
            f"Table {name}: {plural(count, 'entry')}" for name, count in self.tables.items()
        )
        yield from (f"Beside it: {what}" for what in self.beside)
        for number, (name, what) in enumerate(self.besides.items()):
            if number == _MOST_BESIDES:
                yield f"Besides {len(self.besides) - number:,} more"
                return
            yield f"Besides {name}: {what}"


def list_tensors(checkpoint: Any, keys: Iterable[str] | None = None) -> Listing:
    """What a `Checkpoint` holds; of its tensors all, or those of some keys."""
    chosen = checkpoint if keys is None else keys
    return Listing(
        url=checkpoint.url,
        format=checkpoint.format,
        rows=tuple(row_of(checkpoint, key) for key in chosen),
        optimizers=tuple(_optimizers(checkpoint)),
        vocabularies={name: len(found) for name, found in _held(checkpoint, "vocabularies")},
        tables={name: len(table.keys) for name, table in _held(checkpoint, "tables")},
        besides=checkpoint.besides(),
    )


def _held(checkpoint: Any, name: str) -> Iterable[tuple[str, Any]]:
    """What a method of a checkpoint gives by name, of formats that have it."""
    method = getattr(checkpoint, name, None)
    return () if method is None else method().items()


def _optimizers(checkpoint: Any) -> Iterator[dict[str, Any]]:
    for saved in checkpoint.optimizer_states():
        with_state = sum(bool(parameter.slots) for parameter in saved.parameters)
        yield {
            "path": saved.path,
            "parameters": with_state,
            "slots": list(saved.slot_names),
            "names_parameters": saved.is_named,
        }
    for number, graph in enumerate(checkpoint.graph_optimizers()):
        slots = dict.fromkeys(name for of in graph.slots.values() for name in of)
        yield {
            "path": f"{number} of the object graph",
            "parameters": len(graph.slots),
            "slots": list(slots),
            "names_parameters": True,
        }
