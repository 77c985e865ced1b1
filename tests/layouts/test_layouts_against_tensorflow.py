"""Every layout against real layers of TensorFlow: torch computes what they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tf_layer_cases import CASES, WAYS

# -- what TensorFlow computes ----------------------------------------------------------------------


TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("way", "case"),
    [
        pytest.param(w, c, id=f"{'-'.join(w)}-{c}")
        for w in WAYS
        for c in CASES
        if w[0] in c.libraries
    ],
)
def test_torch_computes_what_tensorflow_does(ported, way, case):
    _, outcomes, model = ported(*way)
    _compare(case, model[case.name], outcomes[case.name], TOLERANCE[way[2]])


def _compare(case, module, outcome, tolerance):
    inputs = torch.from_numpy(outcome.inputs)
    inputs = (inputs.movedim(-1, 1) if case.channels_first else inputs).clone()
    inputs.requires_grad_(inputs.is_floating_point())
    outputs = case.torch_after(module(case.torch_before(inputs)))
    in_order = outputs.movedim(1, -1) if case.channels_first else outputs
    assert _difference(in_order, outcome.outputs) <= tolerance
    if outcome.gradient is not None:
        (in_order * torch.from_numpy(outcome.directions)).sum().backward()
        gradient = inputs.grad.movedim(1, -1) if case.channels_first else inputs.grad
        assert _difference(gradient, outcome.gradient) <= tolerance


def _difference(ours, theirs):
    """The largest error, relative to the largest value."""
    ours = ours.detach().numpy()
    assert ours.shape == theirs.shape
    assert np.abs(theirs).max() > 0
    return np.abs(ours - theirs).max() / np.abs(theirs).max()
