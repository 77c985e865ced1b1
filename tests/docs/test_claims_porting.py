"""What docs/porting.md says of always, never, only, each and all: a test for a claim."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bundle_writer import write_random_bundle
from torch import nn

import torch_warmstart as tws


def bundle(folder: Path, **shapes) -> str:
    return write_random_bundle(
        str(folder / "c"), {k.replace("__", "/"): s for k, s in shapes.items()}
    )


def start(source, model, **more):
    return tws.warm_start(model, tws.WarmStartSettings(source, [".*"], **more))


def linear(**sizes) -> nn.Module:
    return nn.ModuleDict({name: nn.Linear(*size) for name, size in sizes.items()})


# -- names -----------------------------------------------------------------------------------------


def test_the_same_names_need_no_rule_and_slashes_stand_for_dots(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, enc__a__kernel=(3, 4), enc__a__bias=(4,))
    model = nn.ModuleDict({"enc": linear(a=(3, 4))})
    report = start(prefix, model)
    assert report.count("kept") == 0
    assert torch.equal(model["enc"]["a"].weight, tws.load_variable(prefix, "enc/a/kernel").T)


def test_a_scope_in_front_is_seen_through_only_where_one_tensor_answers(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    one = bundle(tmp_path / "one", seq__a__kernel=(3, 4), seq__a__bias=(4,))
    start(one, linear(a=(3, 4)))
    two = bundle(tmp_path, s1__a__kernel=(3, 4), s2__a__kernel=(3, 4), s1__a__bias=(4,))
    with pytest.raises(tws.PlanError):
        start(two, linear(a=(3, 4)))


OWN, INNER, OUTER = {"a.b.w": "x"}, {"a.b.": "x."}, {"a.": "x."}
PATTERN = [(r"a\.b\.w", "x")]


@pytest.mark.parametrize(
    ("rules", "loser"),
    [
        (OWN | INNER, "a.b."),
        (OWN | OUTER, "a."),
        (INNER | OUTER, "a."),
        (tws.NameRules(OUTER, PATTERN), "x"),
        (tws.NameRules(OWN, PATTERN), "x"),
    ],
)
def test_own_rules_count_more_than_inner_scopes_outer_scopes_and_patterns(rules, loser) -> None:
    """A rule that is not used is an error, which says that another one counts more."""
    model = nn.Module()
    model.a = nn.Module()
    model.a.b = nn.Module()
    model.a.b.w = nn.Parameter(torch.zeros(2))
    source = dict.fromkeys(("x", "x.w", "x.b.w"), torch.ones(2))
    for alone in (OWN, INNER, OUTER, PATTERN):
        start(source, model, var_name_to_prev_var_name=alone)
    with pytest.raises(tws.PlanError, match="another rule counts more") as caught:
        start(source, model, var_name_to_prev_var_name=rules)
    (problem,) = caught.value.problems
    assert f"'{loser}" in str(problem)
    assert not any(f"'{name}'" in str(problem).partition("is not used")[0] for name in OWN)


@pytest.mark.parametrize(
    "rules", [{"b.weight": "a.weight"}, {"b.": "a."}, [("b.*", "a")], {"a.weight": "a.weigth"}]
)
def test_a_rule_that_matches_nothing_or_whose_tensor_is_not_there_is_an_error(rules) -> None:
    model = linear(a=(2, 2))
    with pytest.raises(tws.PlanError, match="a.weight|match|no variables"):
        start(model.state_dict(), model, var_name_to_prev_var_name=rules)


def test_a_suggestion_is_high_only_where_names_agree(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, old_head__kernel=(3, 4), zzz__kernel=(5, 6))
    suggestions = tws.suggest_names(linear(head=(3, 4, False), q=(5, 6, False)), prefix)
    assert "high" not in str(suggestions).partition("q.weight")[2].splitlines()[0]


# -- layouts, and what is refused ------------------------------------------------------------------


def test_identity_takes_a_tensor_as_it_is(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, a__kernel=(3, 3))
    model = linear(a=(3, 3, False))
    start(prefix, model, var_name_to_layout={"a.weight": "identity"})
    assert torch.equal(model["a"].weight, tws.load_variable(prefix, "a/kernel"))


def test_a_module_of_the_users_own_takes_tensors_as_they_are(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.zeros(3, 3))

    prefix = bundle(tmp_path, a__kernel=(3, 3))
    model = nn.ModuleDict({"a": Own()})
    start(prefix, model)
    assert torch.equal(model["a"].kernel, tws.load_variable(prefix, "a/kernel"))


REFUSED = {
    "transposed convolution with groups": (
        nn.ConvTranspose2d(4, 4, 3, groups=2, bias=False),
        {"a__kernel": (3, 3, 4, 2)},
    ),
    "bilinear": (nn.Bilinear(3, 3, 3, bias=False), {"a__kernel": (3, 3, 3)}),
    "a layer without a known layout": (
        nn.AdaptiveLogSoftmaxWithLoss(4, 10, [3]),
        {"a__head__weight": (4, 4)},
    ),
    "peepholes": (
        nn.LSTM(2, 3),
        {
            "a__lstm_cell__kernel": (5, 12),
            "a__lstm_cell__bias": (12,),
            "a__lstm_cell__w_f_diag": (3,),
        },
    ),
    "a bias where the layer has none": (
        nn.Linear(3, 4, bias=False),
        {"a__kernel": (3, 4), "a__bias": (4,)},
    ),
    "a gru that applies its gate before": (
        nn.GRU(2, 3),
        {
            "a__gru_cell__kernel": (2, 9),
            "a__gru_cell__recurrent_kernel": (3, 9),
            "a__gru_cell__bias": (9,),
        },
    ),
    "a gru without biases": (
        nn.GRU(2, 3, bias=False),
        {"a__gru_cell__kernel": (2, 9), "a__gru_cell__recurrent_kernel": (3, 9)},
    ),
    "slopes by place": (nn.PReLU(4), {"a__alpha": (5, 5, 4)}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_exact_is_refused_before_anything_is_changed(tmp_path: Path, what) -> None:
    layer, shapes = REFUSED[what]
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(tws.PlanError):
        start(bundle(tmp_path, **shapes), nn.ModuleDict({"a": layer}))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_bias_that_would_be_lost_is_kept_out_with_a_note(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, a__kernel=(3, 4), a__bias=(4,))
    report = start(prefix, linear(a=(3, 4, False)), on_mismatch="keep")
    assert any("a/bias" in str(note) for note in report.notes)


@pytest.mark.parametrize("gamma", [True, False])
def test_a_norm_without_scale_or_center_keeps_what_has_no_effect(tmp_path: Path, gamma) -> None:
    kept = {"a__gamma" if gamma else "a__beta": (4,)}
    prefix = bundle(tmp_path, a__moving_mean=(4,), a__moving_variance=(4,), **kept)
    model = nn.ModuleDict({"a": nn.BatchNorm1d(4)})
    start(prefix, model)
    other = model["a"].bias if gamma else model["a"].weight
    assert other.tolist() == [0.0 if gamma else 1.0] * 4
    with torch.no_grad():
        other += 0.5
    with pytest.raises(tws.PlanError):
        start(prefix, model)


def test_rows_are_never_clipped_or_padded_unasked() -> None:
    source = {"t.weight": torch.ones(4, 2)}
    for rows in (3, 6):
        model = nn.ModuleDict({"t": nn.Embedding(rows, 2)})
        with pytest.raises(tws.PlanError, match="ClipOrPad"):
            start(source, model)
        start(source, model, var_name_to_vocab_info={"t.weight": tws.ClipOrPad()})
        expected = [[1.0, 1.0]] * min(rows, 4) + [[0.0, 0.0]] * (rows - 4)
        assert model["t"].weight.tolist() == expected


def test_the_name_of_a_module_stands_for_its_variables_that_have_the_axis() -> None:
    old, new = ["a", "b", "c"], ["c", "a"]
    source = {"head.weight": torch.arange(6.0).reshape(3, 2), "head.bias": torch.arange(3.0)}
    model = linear(head=(2, 2))
    start(source, model, var_name_to_vocab_info={"head": tws.VocabInfo(new, -1, 0, old)})
    assert torch.equal(model["head"].weight, source["head.weight"][[2, 0]])
    assert torch.equal(model["head"].bias, source["head.bias"][[2, 0]])


def test_tied_tensors_follow_each_other_whichever_name_is_used() -> None:
    source = {"e.weight": torch.arange(6.0).reshape(3, 2)}
    for name in ("e.weight", "h.weight"):
        model = nn.ModuleDict({"e": nn.Embedding(2, 2), "h": nn.Linear(2, 2, bias=False)})
        model["h"].weight = model["e"].weight
        info = tws.VocabInfo(["c", "a"], 2, 0, ["a", "b", "c"])
        start(source, model, var_name_to_vocab_info={name: info})
        assert model["h"].weight is model["e"].weight
        assert torch.equal(model["e"].weight, source["e.weight"][[2, 0]])


def test_two_layers_of_a_flattening_are_told_until_their_layout_is_named(tmp_path: Path) -> None:
    prefix = bundle(
        tmp_path, c__kernel=(3, 3, 2, 4), c__bias=(4,), fc__kernel=(36, 5), fc__bias=(5,)
    )

    def notes(**more) -> list[str]:
        model = nn.ModuleDict({"c": nn.Conv2d(2, 4, 3), "fc": nn.Linear(36, 5)})
        plan = tws.plan_warm_start(model, tws.WarmStartSettings(prefix, [".*"], **more))
        return [line for line in str(plan).splitlines() if "flatten_channels_last" in line]

    assert any("flatten_channels_last[4]" in line for line in notes())
    named = notes(var_name_to_layout={"fc.weight": "flatten_channels_last[4]"})
    assert all(line.startswith("fc.weight") for line in named)


# -- the proof -------------------------------------------------------------------------------------


def test_what_is_allowed_is_a_part_of_the_largest_value_by_precision() -> None:
    x = torch.tensor([1.0, 1000.0])
    assert tws.verify_port(nn.Identity(), x, x + 0.009)
    assert not tws.verify_port(nn.Identity(), x, x + 0.011)
    double = x.double()
    assert tws.verify_port(nn.Identity(), double, double + 9e-8)
    assert not tws.verify_port(nn.Identity(), double, double + 1.1e-7)


def test_rules_of_a_file_are_those_that_were_saved(tmp_path: Path) -> None:
    prefix = bundle(tmp_path, old__kernel=(3, 4), old__bias=(4,))
    model = linear(new=(3, 4))
    tws.save_rules(tmp_path / "r.toml", tws.suggest_names(model, prefix))
    text = (tmp_path / "r.toml").read_text()
    active = [line for line in text.splitlines() if line and line[0] not in "#["]
    rules = tws.load_rules(tmp_path / "r.toml")
    assert len(active) == len(rules.names) + len(rules.patterns)
