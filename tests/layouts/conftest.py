"""Fixtures that several test files of this folder share."""

from __future__ import annotations

import functools

import pytest
from tf_layer_cases import port_of


@pytest.fixture(scope="module")
def ported(tmp_path_factory):
    """Each way once: the file, what TensorFlow computes, and the model warm-started from it."""
    return functools.cache(lambda *way: port_of(way, tmp_path_factory.mktemp("port")))
