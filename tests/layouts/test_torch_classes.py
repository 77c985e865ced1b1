"""Which layers count as torch's own."""

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from torch_warmstart.layouts import is_torchs_own, torch_layer_of


class Derived(nn.Linear):
    pass


class Holder(nn.Sequential):
    pass


def weight_normed(layer):
    return parametrizations.weight_norm(layer)


@pytest.mark.parametrize(
    ("module", "is_own", "layer"),
    [
        pytest.param(nn.Linear(2, 2), True, nn.Linear, id="torch's"),
        pytest.param(Derived(2, 2), False, nn.Linear, id="derived"),
        pytest.param(weight_normed(nn.Linear(2, 2)), True, nn.Linear, id="parametrized"),
        pytest.param(weight_normed(Derived(2, 2)), False, nn.Linear, id="derived-parametrized"),
        pytest.param(nn.ParameterDict(), True, None, id="container"),
        pytest.param(Holder(), False, None, id="from-a-container"),
        pytest.param(nn.Module(), True, None, id="module"),
    ],
)
def test_the_class_that_computes_counts_and_not_what_torch_puts_around(module, is_own, layer):
    assert (is_torchs_own(module), torch_layer_of(module)) == (is_own, layer)
