"""torch.distributed.checkpoint.load with a planner does what `warm_start` does."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import dcp_jobs as jobs
import pytest
import torch
from jobs import NEW_WORDS, OLD_WORDS, old_state
from ranks import Ranks
from sharded_models import Tower
from torch import nn
from torch.distributed import checkpoint as dcp

import torch_warmstart as tws

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
SOME = pytest.mark.parametrize("how", ["fsdp", "columns", "tensor_parallel", "data_parallel"])
SETTINGS = tws.WarmStartSettings(None, ".*", var_name_to_prev_var_name=jobs.RULES)


@pytest.fixture(scope="module")
def folder(two: Ranks, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What two ranks have saved, under other names."""
    path = str(tmp_path_factory.mktemp("dcp"))
    two.run(jobs.save_renamed, path)
    return path


@SOME
def test_names_are_changed_on_the_way(two: Ranks, folder: str, how: str) -> None:
    two.run(jobs.load_plainly, how, folder)


@SOME
@pytest.mark.parametrize("read_limit", [1 << 20, 50])
def test_rows_are_moved_through_buffers_of_any_size(
    two: Ranks, folder: str, how: str, read_limit: int
) -> None:
    """50 bytes are two rows of six float32."""
    counts = two.run(jobs.load_with_vocabulary, how, folder, read_limit)
    many = two.run(jobs.load_with_vocabulary, how, folder, 1)
    assert all(count <= more for count, more in zip(counts, many, strict=True))


@SOME
@pytest.mark.parametrize("read_limit", [1 << 20, 50])
def test_cells_are_moved_where_several_axes_change(
    two: Ranks, folder: str, how: str, read_limit: int
) -> None:
    two.run(jobs.load_with_axes, how, folder, read_limit)


@SOME
def test_transposed_kernels_are_read_into_shards(two: Ranks, tmp_path: Path, how: str) -> None:
    two.run(jobs.save_of_tensorflow, str(tmp_path))
    two.run(jobs.load_of_tensorflow, how, str(tmp_path))


def test_a_plan_with_a_problem_on_one_rank_changes_nothing(two: Ranks, folder: str) -> None:
    for text in two.run(jobs.problem, "fsdp", folder, 1):
        assert text.startswith("CheckpointException: ")
        assert "PlanError" in text
        assert "nowhere" in text


def test_ranks_with_other_vocabularies_are_told(two: Ranks, folder: str) -> None:
    for text in two.run(jobs.other_vocabulary, folder):
        assert "Rank 1 has other vocabularies than rank 0. No rank has changed anything." in text


def test_what_is_filled_and_saved_loads_in_another_world(two: Ranks, tmp_path: Path) -> None:
    two.run(jobs.save_filled, str(tmp_path))
    info = {"table.weight": tws.VocabInfo(NEW_WORDS, -1, 1, OLD_WORDS)}
    expected = Tower(10)
    tws.warm_start(expected, tws.WarmStartSettings(old_state(), [".*"], info))
    model = Tower(10)
    state = model.state_dict()
    dcp.load(state, checkpoint_id=tmp_path, no_dist=True)

    assert all(torch.equal(tensor, expected.state_dict()[name]) for name, tensor in state.items())


# -- one process -----------------------------------------------------------------------------------


def _load(planner: object, model: nn.Module, folder: str) -> None:
    dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner, no_dist=True)


def test_a_process_alone_loads_what_two_have_saved(folder: str) -> None:
    model = Tower()
    planner = tws.load_planner(model, SETTINGS)
    with pytest.raises(tws.SettingsError, match="when torch.distributed.checkpoint.load begins"):
        _ = planner.plan
    _load(planner, model, folder)

    assert torch.equal(model.table.weight, old_state()["table.weight"])
    assert torch.equal(model.up.weight, old_state()["up.weight"])
    assert planner.report()["table.weight"].key == "emb"
    assert "emb" in str(planner.plan)


def test_what_a_layout_makes_anew_is_staged(tmp_path: Path) -> None:
    kernel = torch.rand(2, 4, 3)
    state = {"conv/kernel": kernel, "bias": torch.rand(3)}
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    model = nn.Conv1d(4, 3, 2)
    settings = tws.WarmStartSettings(
        None,
        var_name_to_prev_var_name={"weight": "conv/kernel"},
        var_name_to_layout={"weight": "conv_flipped"},
    )
    _load(tws.load_planner(model, settings), model, str(tmp_path))

    assert torch.equal(model.weight, kernel.flip(0).permute(2, 1, 0))
    small = nn.Conv1d(4, 3, 2)
    planner = tws.load_planner(small, settings, read_limit=8)
    with pytest.raises(dcp.api.CheckpointException, match="read_limit=8: raise that; or tws"):
        _load(planner, small, str(tmp_path))


@pytest.mark.parametrize("layout", ["transpose", "conv_flipped"])
def test_several_axes_behind_a_layout(tmp_path: Path, layout: str) -> None:
    shape, model = ((4, 3), nn.Linear(5, 4)) if layout == "transpose" else ((2, 4, 3), None)
    model = nn.Conv1d(5, 4, 2) if model is None else model
    state = {"layer/kernel": torch.rand(shape), "bias": torch.rand(3)}
    dcp.save(state, checkpoint_id=tmp_path, no_dist=True)
    columns = tws.VocabInfo(list("xdabq"), old_vocab=list("abcd"), axis=1)
    rows = tws.VocabInfo(list("rpzq"), old_vocab=list("pqr"), backup_initializer=nn.init.ones_)
    settings = tws.WarmStartSettings(
        None,
        ".*",
        {"weight": [rows, columns], "bias": rows},
        {"weight": "layer/kernel"},
        var_name_to_layout={"weight": layout},
    )
    _load(tws.load_planner(model, settings), model, str(tmp_path))
    expected = nn.Linear(5, 4) if layout == "transpose" else nn.Conv1d(5, 4, 2)
    tws.warm_start(expected, replace(settings, ckpt_to_initialize_from=str(tmp_path)))
    assert torch.equal(model.weight, expected.weight)
    assert torch.equal(model.bias, expected.bias)
    assert model.weight[0, 1].ne(0).all()


def test_a_state_that_is_not_the_models_is_refused(folder: str) -> None:
    model = Tower()
    planner = tws.load_planner(model, SETTINGS)
    state = {"model": model.state_dict(), "step": 3}
    with pytest.raises(dcp.api.CheckpointException, match="'step' of the state to be loaded is no"):
        dcp.load(state, checkpoint_id=folder, planner=planner, no_dist=True)


def test_a_model_on_meta_is_refused_with_what_makes_it(folder: str) -> None:
    with torch.device("meta"):
        model = Tower()
    planner = tws.load_planner(model, SETTINGS)
    with pytest.raises(dcp.api.CheckpointException, match="to_empty.device=.* what initialises"):
        dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner, no_dist=True)
    assert model.table.weight.is_meta


def test_a_planner_is_for_one_load(folder: str) -> None:
    model = Tower()
    planner = tws.load_planner(model, SETTINGS)
    for _ in range(2):  # what fails while it is planned may be tried again
        with pytest.raises(dcp.api.CheckpointException, match="is no tensor of the model"):
            dcp.load({"step": 3}, checkpoint_id=folder, planner=planner, no_dist=True)
    dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner, no_dist=True)
    before = planner.report()
    with pytest.raises(dcp.api.CheckpointException, match=r"by tws\.load_planner"):
        dcp.load(model.state_dict(), checkpoint_id=folder, planner=planner, no_dist=True)
    assert planner.report().variables == before.variables


def test_what_would_have_to_be_unpickled_is_refused(folder: str) -> None:
    planner = tws.load_planner(Tower(), SETTINGS)
    item = dcp.planner.ReadItem(
        dcp.planner.LoadItemType.BYTE_IO,
        dcp.metadata.MetadataIndex("step"),
        torch.Size([0]),
        dcp.metadata.MetadataIndex("step"),
        torch.Size([0]),
        torch.Size([0]),
    )
    with pytest.raises(tws.UnsupportedError, match="step is no tensor, and is not unpickled"):
        planner.load_bytes(item, None)


def test_hooks_that_are_not_run_are_said(folder: str) -> None:
    model = Tower()
    model.up.register_load_state_dict_pre_hook(lambda *_: None)
    with pytest.warns(tws.WarmStartWarning, match="load hooks.*load-hooks-not-run"):
        _load(tws.load_planner(model, SETTINGS), model, folder)


def test_more_reads_than_a_million_are_refused(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_warmstart.execution.dcp import load_planner as module

    monkeypatch.setattr(module, "_MOST_READS", 3)
    model = Tower()
    planner = tws.load_planner(model, SETTINGS)
    with pytest.raises(dcp.api.CheckpointException, match="more than 3 reads would be needed"):
        _load(planner, model, folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("folder",), "needs WarmStartSettings, not a str"),
        ((tws.WarmStartSettings("folder"),), "ckpt_to_initialize_from must be None"),
        ((SETTINGS, 0), "read_limit must be a number of bytes above 0: 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[object, ...], message: str) -> None:
    limit = {"read_limit": arguments[1]} if arguments[1:] else {}
    with pytest.raises(tws.SettingsError, match=message):
        tws.load_planner(Tower(), arguments[0], **limit)


def test_settings_without_a_checkpoint_are_for_a_planner_only() -> None:
    with pytest.raises(tws.SettingsError, match="must be set"):
        tws.warm_start(Tower(), SETTINGS)


@pytest.mark.parametrize("own", [False, True], ids=["of two tensors", "of one"])
def test_variables_on_one_memory_are_made_of_one_tensor_or_refused(
    tmp_path: Path, *, own: bool
) -> None:
    """What is read last would stay in both."""
    values = {"a.weight": torch.ones(4, 3), "b.weight": torch.full((4, 3), 2.0)}
    dcp.save(values, checkpoint_id=tmp_path)
    model = nn.ModuleDict({name: nn.Linear(3, 4, bias=False) for name in "ab"})
    model["b"].weight = nn.Parameter(model["a"].weight.data)
    before = model["a"].weight.detach().clone()
    rules = {"b.weight": "a.weight"} if own else {}
    settings = tws.WarmStartSettings(None, ".*", var_name_to_prev_var_name=rules)
    planner = tws.load_planner(model, settings)
    if own:
        dcp.load(model.state_dict(), checkpoint_id=tmp_path, planner=planner)
        assert torch.equal(model["b"].weight, values["a.weight"])
        return
    with pytest.raises(dcp.CheckpointException, match="'a.weight' and 'b.weight' share memory"):
        dcp.load(model.state_dict(), checkpoint_id=tmp_path, planner=planner)
    assert torch.equal(model["a"].weight, before)


@pytest.mark.parametrize("writes", [False, True])
def test_an_initialiser_changes_nothing_of_the_model(tmp_path: Path, writes: bool) -> None:
    dcp.save({"e.weight": torch.ones(2, 2)}, checkpoint_id=tmp_path)
    model = nn.ModuleDict({"e": nn.Embedding(2, 2), "other": nn.Linear(2, 2)})
    before = model["other"].weight.detach().clone()

    def filler(tensor: torch.Tensor) -> torch.Tensor:
        model.eval()
        if writes:
            model["other"].weight.data.fill_(9.0)
        return tensor.fill_(5.0)

    info = tws.VocabInfo(["a", "n"], old_vocab=["a", "b"], backup_initializer=filler)
    planner = tws.load_planner(model, tws.WarmStartSettings(None, "e.*", {"e.weight": info}))
    with pytest.raises(dcp.CheckpointException, match="changed") if writes else nullcontext():
        dcp.load(model.state_dict(), checkpoint_id=tmp_path, planner=planner)
    assert model.training
    assert model["other"].weight.equal(before)
    if not writes:
        assert model["e"].weight.tolist() == [[1.0, 1.0], [5.0, 5.0]]
