"""A layer's weight is the layer's weight, under whatever attribute either side has it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import torch_warmstart as tws

MAKERS = {
    "linear": (lambda: nn.Linear(4, 4), (4,)),
    "conv": (lambda: nn.Conv2d(4, 4, 4), (4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 4, 4), (4, 4)),
}
WRAPPERS = {"old": weight_norm, "new": parametrizations.weight_norm}
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


def around(layer):
    return nn.ModuleDict({"fc": layer}).eval()


def same(found, wanted, shape):
    x = torch.randn(2, *shape)
    assert torch.allclose(found["fc"](x), wanted["fc"](x), atol=1e-5)


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_plain_weight_of_torch_is_its_norm_and_itself(kind, wrap):
    make, shape = MAKERS[kind]
    plain = around(make())
    normed = around(WRAPPERS[wrap](make()))
    tws.warm_start(normed, plain.state_dict())
    same(normed, plain, shape)


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_normed_weight_becomes_a_plain_one(kind, wrap):
    make, shape = MAKERS[kind]
    plain, normed = around(make()), around(WRAPPERS[wrap](make()))
    for parameter in normed.parameters():
        nn.init.normal_(parameter)
    tws.warm_start(plain, normed.state_dict())
    same(plain, normed, shape)


@pytest.mark.parametrize(("source", "target"), [("old", "new"), ("new", "old"), ("new", "new")])
def test_old_and_new_functions_are_one(source, target):
    make, shape = MAKERS["conv"]
    old, new = around(WRAPPERS[source](make())), around(WRAPPERS[target](make()))
    for parameter in old.parameters():
        nn.init.normal_(parameter)
    tws.warm_start(new, old.state_dict())
    same(new, old, shape)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("is_old", [True, False], ids=["old to new", "new to old"])
def test_old_and_new_spectral_norms_are_one_with_their_vectors(kind, is_old):
    make, shape = MAKERS[kind]
    wraps = (spectral_norm, parametrizations.spectral_norm)
    source, target = wraps if is_old else wraps[::-1]
    old, new = nn.ModuleDict({"fc": source(make())}), around(target(make()))
    for _ in range(3):
        old["fc"](torch.randn(2, *shape))
    report = tws.warm_start(new, tws.WarmStartSettings(old.eval().state_dict(), [".*"]))
    assert not report.missing_keys
    assert not report.unexpected_keys
    assert not report.notes
    same(new, old, shape)


@pytest.mark.parametrize("wrap", [spectral_norm, parametrizations.spectral_norm])
def test_a_spectrally_normed_weight_becomes_a_plain_one(wrap):
    plain, normed = around(nn.Linear(4, 4)), around(wrap(nn.Linear(4, 4)))
    tws.warm_start(plain, normed.state_dict())
    same(plain, normed, (4,))


@pytest.mark.parametrize("wrap", [spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize(
    ("make", "dim", "shape"),
    [
        (lambda: nn.ConvTranspose2d(4, 4, 3), None, (4, 5, 5)),  # torch's default is axis 1 here
        (lambda: nn.ConvTranspose1d(4, 6, 3), None, (4, 5)),
        (lambda: nn.Linear(16, 16), 1, (16,)),
        (lambda: nn.Conv2d(3, 5, 2), 1, (3, 4, 4)),
    ],
)
def test_the_axis_of_a_spectral_norm_is_the_one_that_its_vectors_belong_to(wrap, make, dim, shape):
    normed = around(wrap(make(), dim=dim))
    normed.train()
    for _ in range(20):
        normed["fc"](torch.randn(2, *shape))
    plain = around(make())
    tws.warm_start(plain, normed.eval().state_dict())
    same(plain, normed, shape)


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("wrap", [spectral_norm, parametrizations.spectral_norm])
def test_its_vectors_tell_it_after_a_step_or_two(wrap, dim):
    for seed in range(8):
        torch.manual_seed(seed)
        normed = around(wrap(nn.Linear(4, 4), dim=dim))
        normed.train()
        for _ in range(1 + seed % 2):
            normed["fc"](torch.randn(2, 4))
        plain = around(nn.Linear(4, 4))
        tws.warm_start(plain, normed.eval().state_dict())
        same(plain, normed, (4,))


def test_a_pruned_weight_becomes_a_plain_one():
    plain, pruned = around(nn.Linear(4, 4)), nn.ModuleDict({"fc": nn.Linear(4, 4)})
    prune.l1_unstructured(pruned["fc"], "weight", amount=0.5)
    tws.warm_start(plain, pruned.state_dict())
    same(plain, pruned, (4,))
    with pytest.raises(tws.PlanError, match="weight_mask"):
        tws.warm_start(
            plain,
            tws.WarmStartSettings(
                pruned.state_dict(), var_name_to_prev_var_name={"fc.weight": "fc.weight_orig"}
            ),
        )


@pytest.fixture
def kernel():
    """A square kernel of TensorFlow's."""
    kernel, bias = torch.randn(4, 4), torch.randn(4)
    return {"fc/kernel": kernel, "fc/bias": bias}, kernel


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("rules", [None, {"fc.": "fc/"}])
def test_a_kernel_into_a_normed_layer_is_transposed(kernel, wrap, rules):
    path, value = kernel
    normed = around(WRAPPERS[wrap](nn.Linear(4, 4)))
    tws.warm_start(normed, tws.WarmStartSettings(path, var_name_to_prev_var_name=rules))
    x = torch.randn(2, 4)
    assert torch.allclose(normed["fc"](x), x @ value + normed["fc"].bias, atol=1e-5)


@pytest.mark.parametrize("rule", [None, {"fc.parametrizations.weight.original": "fc/kernel"}])
def test_a_kernel_into_a_spectrally_normed_layer_is_transposed_and_told(kernel, rule):
    path, value = kernel
    normed = around(parametrizations.spectral_norm(nn.Linear(4, 4)))
    report = tws.warm_start(normed, tws.WarmStartSettings(path, var_name_to_prev_var_name=rule))
    assert torch.equal(normed["fc"].parametrizations.weight.original, value.t())
    assert any("estimate of its norm" in str(audit) for audit in report.audits)


def test_an_orthogonal_weight_is_refused(kernel):
    path, _ = kernel
    layer = around(parametrizations.orthogonal(nn.Linear(4, 4)))
    with pytest.raises(tws.PlanError, match="_Orthogonal computes it from other values"):
        tws.warm_start(layer, path)


@pytest.mark.parametrize(
    "wrap",
    [parametrizations.weight_norm, parametrizations.spectral_norm, parametrizations.orthogonal],
)
def test_a_model_that_is_one_layer_is_found_under_its_own_names(wrap):
    old, new = wrap(nn.Linear(4, 4)).eval(), wrap(nn.Linear(4, 4)).eval()
    tws.warm_start(new, tws.WarmStartSettings(old.state_dict(), [".*"]))
    for name, value in old.state_dict().items():
        assert torch.equal(new.state_dict()[name], value), name


def test_a_model_that_is_one_normed_layer_takes_a_plain_weight():
    plain, normed = nn.Linear(4, 3), parametrizations.weight_norm(nn.Linear(4, 3))
    tws.warm_start(normed, plain.state_dict())
    assert torch.allclose(normed.weight, plain.weight)


@pytest.mark.parametrize("wrap", [weight_norm, parametrizations.weight_norm])
@pytest.mark.parametrize(("there", "here"), [(1, 0), (0, 1), (None, 0), (0, None)])
def test_a_norm_along_another_axis_is_named_with_what_can_be_done(wrap, there, here):
    old = around(wrap(nn.Linear(4, 4), dim=there))
    with pytest.raises(tws.PlanError) as raised:
        tws.warm_start(around(wrap(nn.Linear(4, 4), dim=here)), old.state_dict())
    (problem,) = raised.value.problems
    assert f"a weight_norm(dim={there}) there, and of dim={here} here" in problem.text
    assert "transpose" not in problem.hint
    assert "ClipOrPad" not in problem.hint

    plain = around(nn.Linear(4, 4))  # as it says
    tws.warm_start(plain, old.state_dict())
    normed, x = around(wrap(plain["fc"], dim=here)), torch.randn(2, 4)
    assert torch.allclose(normed["fc"](x), old["fc"](x), atol=1e-6)
