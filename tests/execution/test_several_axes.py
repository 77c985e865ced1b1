"""A list of infos for one variable: every cell against a slow loop. Columns by feature."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import ClipOrPad, SegmentInfo, VocabInfo, WarmStartSettings

FILLS = {"zeros": None, "keep": "keep", "ones": nn.init.ones_}


class Table(nn.Module):
    def __init__(self, *shape: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.t = nn.Parameter(torch.randn(shape).to(dtype))


def _names(rng: random.Random, count: int) -> list[str]:
    return rng.sample([f"e{i}" for i in range(12)], count)


def _map(new: list[str], old: list[str]) -> list[int]:
    return [old.index(entry) if entry in old else -1 for entry in new]


def _reference(old, before, maps, fills):
    """`maps` by axis and `fills` by axis, both in the order of the list."""
    out = before.clone()
    for cell in [tuple(i) for i in torch.ones(before.shape).nonzero().tolist()]:
        at, fill = list(cell), None
        for axis, rows in maps.items():
            at[axis] = rows[cell[axis]]
            if rows[cell[axis]] < 0 and fill is None:
                fill = fills[axis]
        if fill is None:
            out[cell] = old[tuple(at)].to(out.dtype)
        elif fill != "keep":
            out[cell] = float(fill == "ones")
    return out


@pytest.mark.parametrize("seed", range(40))
def test_every_cell_is_what_a_slow_loop_says(seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    rank = rng.choice([2, 2, 3])
    axes = rng.sample(range(rank), rng.choice([2, rank]))
    old_shape, new_shape, maps, fills, infos = [], [], {}, {}, []
    sizes = [(rng.randint(1, 9), rng.randint(1, 9)) for _ in range(rank)]
    for axis, (old_size, new_size) in enumerate(sizes):
        old_shape.append(old_size)
        new_shape.append(new_size if axis in axes else old_size)
    for axis in axes:
        fills[axis] = rng.choice(list(FILLS))
        old_size, new_size = sizes[axis]
        if rng.random() < 0.3:
            maps[axis] = [i if i < old_size else -1 for i in range(new_size)]
            infos.append(ClipOrPad(axis, FILLS[fills[axis]]))
            continue
        old, new = _names(rng, old_size), _names(rng, new_size)
        maps[axis] = _map(new, old)
        info = VocabInfo(new, old_vocab=old, backup_initializer=FILLS[fills[axis]], axis=axis)
        infos.append(info)
    stored = torch.randn(old_shape).to(rng.choice([torch.float32, torch.bfloat16]))
    model = Table(*new_shape)
    before = model.t.detach().clone()
    settings = WarmStartSettings({"t": stored}, var_name_to_vocab_info={"t": infos})
    staging = rng.choice(["none", "memory"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tws.WarmStartWarning)  # hardly an entry may be found
        report = tws.warm_start(model, settings, staging=staging)
    assert torch.equal(model.t.detach(), _reference(stored, before, maps, fills))
    assert report["t"].rows.total == new_shape[axes[0]]
    assert f"axis {axes[1]}" in str(report)


def test_another_vocabulary_and_another_width():
    old, model = torch.arange(12.0).reshape(3, 4), nn.ModuleDict({"t": nn.Embedding(2, 6)})
    infos = [VocabInfo(["c", "a"], old_vocab=["a", "b", "c"]), ClipOrPad(axis=1)]
    settings = WarmStartSettings({"t.weight": old}, var_name_to_vocab_info={"t.weight": infos})
    tws.warm_start(model, settings)
    wanted = torch.zeros(2, 6)
    wanted[:, :4] = old[[2, 0]]
    assert torch.equal(model["t"].weight, wanted)


def test_slots_follow_along_both_axes_and_through_a_layout():
    torch.manual_seed(3)
    teacher, model = nn.Linear(4, 3), nn.Linear(5, 2)
    adam = torch.optim.Adam(teacher.parameters())
    teacher(torch.randn(7, 4)).square().sum().backward()
    adam.step()
    saved = {"model": teacher.state_dict(), "optimizer": adam.state_dict()}
    classes = VocabInfo(["z", "x"], old_vocab=["x", "y", "z"])
    features = SegmentInfo({"b": 2, "new": 1, "a": 2}, {"a": 2, "b": 2})
    optimizer = torch.optim.Adam(model.parameters())
    settings = WarmStartSettings(
        saved, var_name_to_vocab_info={"weight": [classes, features], "bias": classes}
    )
    tws.warm_start(model, settings, optimizer=optimizer)
    for new, old in (
        (model.weight, teacher.weight),
        (optimizer.state[model.weight]["exp_avg"], adam.state[teacher.weight]["exp_avg"]),
        (optimizer.state[model.weight]["exp_avg_sq"], adam.state[teacher.weight]["exp_avg_sq"]),
    ):
        assert torch.equal(new[:, [0, 1, 3, 4]], old[[2, 0]][:, [2, 3, 0, 1]])
        assert not new[:, 2].any()
    settings = WarmStartSettings(
        {"k": teacher.weight.detach().T.contiguous(), "bias": teacher.bias.detach()},
        var_name_to_vocab_info={"weight": [classes, features], "bias": classes},
        var_name_to_prev_var_name={"weight": "k"},
        var_name_to_layout={"weight": "transpose"},
    )
    again = nn.Linear(5, 2)
    tws.warm_start(again, settings)
    assert torch.equal(again.weight, model.weight)


def test_rows_made_of_old_ones_are_as_wide_as_these():
    old, model = torch.randn(3, 4), nn.ModuleDict({"t": nn.Embedding(3, 5)})
    mean = VocabInfo(["a", "n", "c"], old_vocab=["a", "b", "c"], backup_initializer=tws.init.mean())
    infos = [mean, ClipOrPad(axis=1, backup_initializer=nn.init.ones_)]
    settings = WarmStartSettings({"t.weight": old}, var_name_to_vocab_info={"t.weight": infos})
    tws.warm_start(model, settings)
    weight = model["t"].weight.detach()
    assert torch.equal(weight[[0, 2], :4], old[[0, 2]])
    torch.testing.assert_close(weight[1, :4], old.mean(0))
    assert bool((weight[:, 4] == 1).all())


def _plan(infos):
    old, model = torch.randn(3, 4), nn.ModuleDict({"t": nn.Embedding(3, 5)})
    settings = WarmStartSettings({"t.weight": old}, var_name_to_vocab_info={"t.weight": infos})
    return tws.plan_warm_start(model, settings)


def test_what_cannot_be_said_together():
    one = VocabInfo(["a", "n", "c"], old_vocab=["a", "b", "c"])
    with pytest.raises(tws.SettingsError, match="two of its list are for axis 0"):
        _plan([one, ClipOrPad(axis=0)])
    with pytest.raises(tws.SettingsError, match="a VocabInfo, a ClipOrPad, a SegmentInfo or a"):
        _plan([one, "t.txt"])
    with pytest.raises(tws.PlanError, match="axis"):
        _plan([one, ClipOrPad(axis=-2)])  # axis 0 by another name
    made = VocabInfo(["a", "n", "c"], old_vocab=["a", "b", "c"], backup_initializer=tws.init.mean())
    columns = VocabInfo(
        list("vwxyz"), old_vocab=list("vwxo"), axis=1, backup_initializer=tws.init.mean()
    )
    with pytest.raises(tws.PlanError, match="no old values"):
        _plan([made, columns])


def test_features_are_moved_by_name_and_one_hot_ones_by_entry():
    old, model = torch.arange(12.0).reshape(2, 6), nn.Linear(7, 2, bias=False)
    colours = VocabInfo(["red", "pink", "blue"], old_vocab=["blue", "red"])
    segments = SegmentInfo(
        {"age": 1, "colour": colours, "zip": 3}, {"colour": 2, "age": 1, "gone": 3}
    )
    settings = WarmStartSettings({"weight": old}, var_name_to_vocab_info={"weight": segments})
    report = tws.warm_start(model, settings)
    wanted = torch.zeros(2, 7)
    wanted[:, 0], wanted[:, 1], wanted[:, 3] = old[:, 2], old[:, 1], old[:, 0]
    assert torch.equal(model.weight, wanted)
    assert report["weight"].rows.dropped + report["weight"].rows.old_unused == 3


@pytest.mark.parametrize(
    ("new", "old", "match"),
    [
        ({"a": 2}, {"a": 3}, "had 3 columns and has 2"),
        ({}, {"a": 3}, "an empty one"),
        ({"a": 0}, {"a": 3}, "at least 1"),
        ({"a": VocabInfo(["x"])}, {"a": 3}, "needs old_vocab"),
        ({"a": 3}, {"a": VocabInfo(["x"], old_vocab=["x"])}, "stands in new_segments"),
    ],
)
def test_features_that_cannot_be(new, old, match):
    with pytest.raises(tws.SettingsError, match=match):
        SegmentInfo(new, old)


def test_features_whose_columns_do_not_add_up():
    settings = WarmStartSettings(
        {"weight": torch.ones(2, 6)},
        var_name_to_vocab_info={"weight": SegmentInfo({"a": 3}, {"a": 3, "b": 2})},
    )
    with pytest.raises(tws.PlanError, match="together 5 columns, and the old variable has 6"):
        tws.plan_warm_start(nn.Linear(3, 2, bias=False), settings)


def test_a_live_model_and_a_settings_file_take_what_they_can(tmp_path):
    infos = [VocabInfo(["a"], old_vocab=["a", "b"]), ClipOrPad(axis=1)]
    model = nn.ModuleDict({"t": nn.Embedding(2, 3)})
    before = model["t"].weight.detach().clone()
    with pytest.raises(tws.WarmStartError):
        tws.change_vocabulary(model, {"t.weight": infos})
    assert torch.equal(model["t"].weight, before)
    other = {"other.weight": torch.ones(2, 3)}
    asked = WarmStartSettings(other, var_name_to_vocab_info={"t.weight": infos})
    with pytest.raises(tws.PlanError):  # and no AttributeError where names are looked for
        tws.plan_warm_start(model, asked)
    settings = WarmStartSettings("c.pt", var_name_to_vocab_info={"t.weight": infos})
    tws.save_settings(path := tmp_path / "w.toml", settings)
    loaded = tws.load_settings(path).var_name_to_vocab_info["t.weight"]
    assert [info.axis for info in loaded] == [0, 1]
    assert isinstance(loaded[1], ClipOrPad)


def test_features_in_a_settings_file_keep_their_order(tmp_path):
    path = tmp_path / "w.toml"
    features = SegmentInfo(
        {"a": 2, "c": VocabInfo(["x"], old_vocab=["y", "x"]), "d": 1}, {"c": 2, "a": 2}
    )
    settings = WarmStartSettings("c.pt", var_name_to_vocab_info={"t.weight": features})
    tws.save_settings(path, settings)
    loaded = tws.load_settings(path).var_name_to_vocab_info["t.weight"]
    assert isinstance(loaded, SegmentInfo)
    assert list(loaded.new_segments) == ["a", "c", "d"]
    assert loaded.new_segments["c"].old_vocab == ["y", "x"]
    assert list(loaded.old_segments.items()) == [("c", 2), ("a", 2)]
    path.write_text(path.read_text().replace('["a", 2], ["c"', '["a", 2], ["a", 2], ["c"'))
    with pytest.raises(tws.SettingsError, match="'a' is there twice"):
        tws.load_settings(path)
    table = '[var_name_to_vocab_info.w]\ntype = "SegmentInfo"\nnew_segments = {a = 1}\n'
    path.write_text(f'ckpt_to_initialize_from = "c.pt"\n{table}old_segments = [["a", 1]]\n')
    with pytest.raises(
        tws.SettingsError, match="new_segments is a list of features in their order"
    ):
        tws.load_settings(path)


def _features(new, old, size):
    settings = WarmStartSettings(
        {"weight": torch.ones(2, sum(old.values()))},
        var_name_to_vocab_info={"weight": SegmentInfo(new, old)},
    )
    return tws.plan_warm_start(nn.Linear(size, 2, bias=False), settings)


def test_features_that_are_hardly_found_are_told():
    with pytest.raises(
        tws.PlanError, match="'A' of new_segments .* would be 'a' if case were ignored"
    ):
        _features({"A": 1, "B": 2}, {"a": 1, "b": 2}, 3)
    (note,) = _features({"x": 1, "y": 2}, {"a": 1, "b": 2}, 3).notes
    assert (note.code, note.severity) == ("few-entries-found", "warning")
    colours = VocabInfo(["teal", "plum"], old_vocab=["red", "blue"])
    (note,) = _features({"a": 1, "c": colours}, {"a": 1, "c": 2}, 3).notes
    assert note.code == "few-entries-found"
    assert "of 'c' 0 of 2 entries" in note.text
    assert not _features({"a": 1, "new": 2}, {"a": 1}, 3).notes


def test_the_limit_is_for_initialisers_of_all_axes():
    infos = [VocabInfo(["a"], old_vocab=["b", "a"]), ClipOrPad(1, nn.init.ones_)]
    model = nn.ModuleDict({"t": nn.Embedding(1, 9)})
    settings = WarmStartSettings(
        {"t.weight": torch.ones(2, 4)}, var_name_to_vocab_info={"t.weight": infos}
    )
    with pytest.raises(tws.SettingsError, match="gets the whole shape, which takes 36 bytes"):
        tws.warm_start(model, settings, memory_limit=35)
