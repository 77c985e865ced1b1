"""What the tests of suggested names share."""

from __future__ import annotations

import numpy as np
import torch
from bundle_writer import BundleEntry, DType, write_bundle
from torch import nn


def write(shapes, path="c"):
    """A TF checkpoint of float tensors of these shapes, each element another number."""
    start, entries = 0, []
    for key, shape in sorted(shapes.items()):
        values = np.arange(start, start + int(np.prod(shape)), dtype="<f4")
        start += len(values)
        entries.append(BundleEntry(key, DType.FLOAT, tuple(shape), values.tobytes()))
    write_bundle(path, entries)
    return path


def modules(**children):
    """A module of these children."""
    module = nn.Module()
    for name, child in children.items():
        setattr(module, name, child)
    return module


def confidences(suggestions):
    return {item.variable: item.confidence for item in suggestions.items}


WIDTH, WORDS, POSITIONS = 4, 15, 16


def _output(inputs):
    return modules(dense=nn.Linear(inputs, WIDTH), LayerNorm=nn.LayerNorm(WIDTH))


def _layer():
    projections = {n: nn.Linear(WIDTH, WIDTH) for n in ("query", "key", "value")}
    return modules(
        attention=modules(self=modules(**projections), output=_output(WIDTH)),
        intermediate=modules(dense=nn.Linear(WIDTH, 2 * WIDTH)),
        output=_output(2 * WIDTH),
    )


def bert(layers, name="bert"):
    """The names that Hugging Face gave to the layers of google-research/bert."""
    embeddings = modules(
        word_embeddings=nn.Embedding(WORDS, WIDTH),
        position_embeddings=nn.Embedding(POSITIONS, WIDTH),
        token_type_embeddings=nn.Embedding(2, WIDTH),
        LayerNorm=nn.LayerNorm(WIDTH),
    )
    encoder = modules(layer=nn.ModuleList(_layer() for _ in range(layers)))
    predictions = modules(transform=_output(WIDTH), bias=nn.Parameter(torch.zeros(WORDS)))
    heads = modules(predictions=predictions, seq_relationship=nn.Linear(WIDTH, 2))
    pooler = modules(dense=nn.Linear(WIDTH, WIDTH))
    return modules(
        **{name: modules(embeddings=embeddings, encoder=encoder, pooler=pooler)}, cls=heads
    )


def dense(path, inputs, outputs):
    return {f"{path}/kernel": (inputs, outputs), f"{path}/bias": (outputs,)}


def mlp():
    return modules(
        fc1=nn.Linear(8, 6), fc2=nn.Linear(6, 6), fc3=nn.Linear(6, 6), classifier=nn.Linear(6, 3)
    )


def keras_mlp():
    sizes = {"dense": (8, 6), "dense_1": (6, 6), "dense_2": (6, 6), "dense_3": (6, 3)}
    return {k: s for n, size in sizes.items() for k, s in dense(n, *size).items()}
