"""What the checkpoint's file says of the layers that a model's modules stand for."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import nn

from torch_warmstart.formats import Checkpoint, SavedLayer
from torch_warmstart.layouts import joined_form
from torch_warmstart.model import Shape, Variable
from torch_warmstart.names import Source, with_layout
from torch_warmstart.values import frozen

if TYPE_CHECKING:
    from torch_warmstart.layouts.tensorflow import Described

_EINSUM = "einsum_dense"
_ATTENTIONS = ("multi_head_attention", "grouped_query_attention")
# Layers of Keras whose tensors may lie in layers within.
_COMPOUND = {
    *("lstm", "gru", "simple_rnn", "rnn", "bidirectional", "stacked_rnn_cells"),
    *("lstm_cell", "gru_cell", "simple_rnn_cell"),
    *_ATTENTIONS,
}
# What it calls the layers within, whose equations are its own.
_PROJECTIONS = {"query", "key", "value", "attention_output"}
_AROUND = {"spectral_normalization"}  # of what is within
_COMPOUND_MODULES = (nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


@frozen(eq=False, slots=False)  # without slots, for the cached property
class FileLayers:
    """The layers that a checkpoint's file tells of."""

    checkpoint: Checkpoint

    def lay_out(self, source: Source, variable: Variable) -> Source:
        """The source, laid out as the file says of its layer, or refused for what it says."""
        if source.form.parts:
            return self._each_laid_out(source)
        return self._laid_out(source, variable.shape)

    def _each_laid_out(self, source: Source) -> Source:
        """What a user has joined, each as the file says of its own layer."""
        pairs = zip(source.specs, source.form.parts, strict=True)
        parts = [replace(source, specs=(spec,), form=part) for spec, part in pairs]
        forms = [self._laid_out(part, part.shape or ()).form for part in parts]
        if forms == list(source.form.parts):
            return source
        shapes = [spec.shape for spec in source.specs]
        joined = joined_form(source.owner.module, source.owner.leaf, forms, shapes)
        return with_layout(source, joined)

    def _laid_out(self, source: Source, into: Shape) -> Source:
        layer = self.checkpoint.layer_of(source.specs[0].key)
        if layer is None:
            return source
        from torch_warmstart.layouts.tensorflow import as_described

        module = source.owner.module
        shapes = [spec.shape for spec in source.specs]
        described = describe(layer_of_module(layer, module))
        if not described.kind and isinstance(module, nn.Linear):
            described = replace(described, is_among_einsums=self._has_einsums)
        form = as_described(
            source.form,
            described,
            module=module,
            leaf=source.owner.leaf,
            shapes=shapes,
            into=into,
        )
        return source if form is source.form else with_layout(source, form)

    @functools.cached_property
    def _has_einsums(self) -> bool:
        """Whether the file has an EinsumDense of its own; those of an attention are in any."""
        layers = (self.checkpoint.layer_of(key) for key in self.checkpoint)
        return any(
            layer.kind == _EINSUM and describe(layer).around not in _ATTENTIONS
            for layer in layers
            if layer is not None
        )


def describe(layer: SavedLayer) -> Described:
    """A layer of a file as layouts know it."""
    from torch_warmstart.layouts.tensorflow import Described

    around = layer.around.kind if layer.around is not None else ""
    if not layer.kind and layer.name.rpartition("/")[2] in _PROJECTIONS:
        around = "multi_head_attention"
    return Described(layer.kind, layer.options, layer.backend, around, name=layer.name)


def layer_of_module(layer: SavedLayer, module: nn.Module) -> SavedLayer:
    """The layer that a module stands for, from the innermost one that a tensor is in."""
    wanted = _COMPOUND if isinstance(module, _COMPOUND_MODULES) else _AROUND
    found, at = layer, layer.around
    while at is not None and at.kind in wanted:
        found, at = at, at.around
    return found
