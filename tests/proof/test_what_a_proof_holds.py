"""What counts as agreement of a port with its record, and what proves nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import torch_warmstart as tws

NAN = float("nan")


def test_an_output_whose_axes_are_swapped_departs() -> None:
    x = torch.randn(2, 5, 4)
    check = tws.verify_port(nn.Identity(), x, x.movedim(1, -1))
    assert not check
    assert check.outputs[0].remark == (
        "the record has shape [2, 4, 5]; give record.movedim(-1, 1) if its channels are last"
    )
    assert "DEPARTS the record has shape [2, 4, 5]; give record.movedim(-1, 1)" in str(check)
    assert tws.verify_port(nn.Identity(), x, x.movedim(1, -1).movedim(-1, 1))


def test_a_square_output_whose_axes_are_swapped_departs() -> None:
    x = torch.randn(2, 4, 4)
    assert tws.verify_port(nn.Identity(), x, x)
    assert not tws.verify_port(nn.Identity(), x, x.movedim(1, -1))


@pytest.mark.parametrize("expected", [list, tuple, lambda parts: dict(enumerate(parts))])
def test_parts_of_an_output_have_the_axes_of_the_output(expected) -> None:
    class Two(nn.Module):
        def forward(self, x):
            return x, 2 * x

    x = torch.randn(2, 5, 4)
    assert tws.verify_port(Two(), x, expected([x, 2 * x]))
    assert not tws.verify_port(Two(), x, expected([x, 2 * x.movedim(1, -1)]))


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 4, 4), (2, 3, 5, 6)])
def test_a_named_layer_may_have_its_channels_last_and_it_is_said(shape) -> None:
    model, x = nn.Sequential(nn.Identity()), torch.randn(shape)
    check = tws.verify_port(model, x, x, layers={"0": x.movedim(1, -1)})
    assert check
    assert check.layers[0].remark == "the record's channels are last"
    assert "the record's channels are last" in str(check)
    plain = tws.verify_port(model, x, x, layers={"0": x})
    assert plain
    assert "channels" not in str(plain)


def test_nothing_but_nan_proves_nothing() -> None:
    x = torch.full((2, 3), NAN)
    message = "output is nothing but NaN in the record and in the model, which proves nothing"
    with pytest.raises(tws.SettingsError, match=message):
        tws.verify_port(nn.Identity(), x, x)
    with pytest.raises(tws.SettingsError, match=r"verify_port: 0 is nothing but NaN"):
        tws.verify_port(nn.Sequential(nn.Identity()), x, [], layers={"0": x.numpy()})
    assert not tws.verify_port(nn.Identity(), torch.ones(2, 3), x)  # it is told as what it is


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool])
def test_nothing_but_zeros_proves_nothing(dtype) -> None:
    x = torch.zeros(2, 3, dtype=dtype)
    with pytest.raises(tws.SettingsError, match=r"compared nothing: .* nothing but zeros"):
        tws.verify_port(nn.Identity(), x, x)
    endless = torch.full((2,), float("inf"))
    with pytest.raises(tws.SettingsError, match="compared nothing"):
        tws.verify_port(nn.Identity(), endless, endless)
    assert not tws.verify_port(nn.Identity(), torch.ones(2, 3), torch.zeros(2, 3))


def test_a_layer_of_zeros_beside_an_output_is_told_and_does_not_count() -> None:
    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.dead = nn.ReLU()

        def forward(self, x):
            return x + self.dead(-x.abs())

    x = torch.randn(2, 3)
    check = tws.verify_port(Dead(), x, x, layers={"dead": torch.zeros(2, 3)})
    assert check
    assert "nothing but zeros, which shows nothing" in str(check)
    assert "agrees with the record in 1 place." in str(check)


@pytest.mark.parametrize(
    ("record", "agrees"),
    [
        ([1.0, NAN, 3.0], True),
        ([NAN, 2.0, 3.0], False),
        ([1.0, 2.0, 3.0], False),
        ([NAN, NAN, 3.0], False),
        ([1.0, NAN, 4.0], False),
    ],
)
def test_nan_is_where_it_was_recorded(record, agrees) -> None:
    check = tws.verify_port(nn.Identity(), torch.tensor([1.0, NAN, 3.0]), np.float32(record))
    assert check.ok == agrees


def test_whole_numbers_agree_exactly_or_not_at_all() -> None:
    ids = torch.tensor([1 << 60, 5])
    assert tws.verify_port(nn.Identity(), ids, ids.clone())
    assert not tws.verify_port(nn.Identity(), ids, ids + 1)
    assert not tws.verify_port(nn.Identity(), ids, torch.tensor([(1 << 60) + 1, 5]))


def test_records_and_outputs_without_plain_values_are_refused() -> None:
    given = torch.ones(2, 2)
    with pytest.raises(tws.SettingsError, match="output of the record is a tensor that is sparse"):
        tws.verify_port(nn.Identity(), given, given.to_sparse())
    with pytest.raises(tws.SettingsError, match="output of the model is a tensor that is sparse"):
        tws.verify_port(nn.Identity(), given.to_sparse(), given)
    with pytest.raises(tws.SettingsError, match="output of the model is a tensor that is sparse"):
        tws.verify_port(nn.Linear(2, 2, device="meta"), given, given)


@pytest.mark.parametrize("whose", ["inputs", "record"])
def test_tensors_on_meta_have_nothing_to_compare(whose) -> None:
    given = [torch.ones(2, 2), torch.ones(2, 2)]
    given[whose == "record"] = torch.ones(2, 2, device="meta")
    with pytest.raises(tws.SettingsError, match="has no values: it is on the meta device"):
        tws.verify_port(nn.Identity(), *given)


def test_layers_are_named_by_text() -> None:
    with pytest.raises(tws.SettingsError, match="module's name in layers must be a str, not a int"):
        tws.verify_port(nn.Sequential(nn.Identity()), torch.ones(2), None, layers={0: [1.0]})
