"""A program that uses every public name as a user would: it type-checks strictly, and runs.

Each function below is a use; what it takes is made for it by the test. No cast, no ignored error.
"""

# pyright: strict

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init

OLD = ["paris", "rome", "lima"]
NEW = ["rome", "oslo", "paris"]


def _old_state() -> dict[str, torch.Tensor]:
    return {"embed.weight": torch.arange(6.0).reshape(3, 2), "head.weight": torch.ones(1, 2)}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.head = nn.Linear(2, 1, bias=False)

    def forward(self, cities: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.embed(cities))
        return scores


def start_and_read_the_report(_: Path) -> None:
    info = tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=nn.init.ones_)
    settings = tws.WarmStartSettings(
        _old_state(), ".*", {"embed.weight": info}, on_missing="keep", verify=True
    )
    report: tws.WarmStartReport = tws.warm_start(Model(), settings)
    moved: int = report["embed.weight"].rows.moved
    share = report["embed.weight"].rows.copied / report["embed.weight"].rows.total
    untouched: bool = not report["head.weight"].rows
    assert (moved, share, untouched) == (2, 2 / 3, True)
    account: tws.VariableAccount = report["head.weight"]
    key: str | None = account.key
    rows: tws.RowAccount = account.rows
    assert (account.state, key, rows.copied) == ("copied", "head.weight", 0)
    missing, unexpected = report
    assert list(missing) == list(unexpected) == []
    note: tws.Finding
    for note in report.notes:
        print(note.code, note.severity, note.subject, note.hint, str(note))
    report.check(min_found=0.5, max_kept=0)
    seconds: float = report.seconds
    assert seconds >= 0
    assert report.count("remapped") == 1
    assert report.to_dict()["version"] == 1


def plan_then_apply(folder: Path) -> None:
    model = Model()
    optimizer = torch.optim.Adam(model.parameters())
    plan: tws.WarmStartPlan = tws.plan_warm_start(
        model, [tws.WarmStartSettings(_old_state())], optimizer=[optimizer], overlap="first"
    )
    item: tws.PlanItem
    for item in plan.items:
        rows = item.rows
        if rows is not None:
            print(item.name, rows.moved)
    inferred: tuple[str, ...] = plan.inferred
    page: str = plan.to_html(folder / "plan.html")
    assert not inferred
    assert page.startswith("<")
    assert str(plan)
    assert repr(plan)
    report = tws.apply_plan(plan, staging="memory", memory_limit=1 << 30, progress=False)
    assert [each.kind for each in report.variables if each.state == "kept"] == ["slot"] * 6


def rename_by_every_kind_of_rule(folder: Path) -> None:
    old = {"body/table": torch.zeros(3, 2), "body/out": torch.zeros(1, 2)}
    rules = tws.NameRules({"embed.weight": "body/table"}, [(r"head\.weight", "body/out")])
    tws.save_rules(folder / "rules.toml", rules)
    again: tws.NameRules = tws.load_rules(folder / "rules.toml")
    for names in (again, {"embed.weight": "body/table", "head.weight": "body/out"}):
        tws.warm_start(Model(), tws.WarmStartSettings(old, var_name_to_prev_var_name=names))

    def name(variable: str) -> str | None:
        return {"embed.weight": "body/table", "head.weight": "body/out"}.get(variable)

    tws.warm_start(Model(), tws.WarmStartSettings(old, var_name_to_prev_var_name=name))
    found: tws.Suggestions = tws.suggest_names(Model(), tws.WarmStartSettings(old))
    suggestion: tws.Suggestion
    for suggestion in found.items:
        print(suggestion.variable, suggestion.names, suggestion.confidence)
    rule: tws.SuggestedRule
    for rule in found.rules:
        print(rule.source, rule.target)
    found.as_rules("high")


def change_rows_in_every_way(_: Path) -> None:
    head = nn.ModuleDict({"out": nn.Linear(4, 3)})
    old = {"out.weight": torch.ones(2, 3), "out.bias": torch.ones(2)}
    segments = tws.SegmentInfo({"age": 1, "city": 3}, {"town": 2, "age": 1})
    padded = tws.ClipOrPad(backup_initializer=partial(nn.init.normal_, std=0.02))
    infos = {"out.weight": [padded, segments], "out.bias": tws.ClipOrPad()}
    tws.warm_start(head, tws.WarmStartSettings(old, var_name_to_vocab_info=infos))

    def info_of(match: re.Match[str]) -> tws.VocabInfo:
        return tws.VocabInfo(NEW, old_vocab=OLD, min_found=0.1)

    by_pattern = {re.compile(r"embed\.weight"): info_of}
    tws.warm_start(Model(), tws.WarmStartSettings(_old_state(), ".*", by_pattern))
    live = Model()
    report = tws.change_vocabulary(live, {"embed.weight": tws.VocabInfo(NEW, old_vocab=OLD)})
    assert report["embed.weight"].rows.moved == 2


def make_new_rows(folder: Path) -> None:
    def first(new: tws.NewRows) -> torch.Tensor:
        return new.old.read(torch.zeros(1, dtype=torch.int64)).expand(len(new), -1)

    def mixed(new: tws.NewRows) -> tws.Mixture:
        count = len(new)
        return tws.Mixture(
            torch.arange(count),
            torch.zeros(count, dtype=torch.int64),
            torch.ones(count),
            torch.ones(count, dtype=torch.bool),
        )

    def letters(entry: str) -> list[str]:
        return [entry[:1]]

    table = (NEW, torch.eye(3))
    infos = [
        tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=first),
        tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=mixed),
        _filled(init.mean() + init.noise(0.02)),
        _filled(init.normal("diagonal", scale=0.5)),
        _filled(init.alias({"oslo": "rome"}) | tws.init.mean("all")),
        _filled(init.group_mean({"oslo": "north", "rome": "south"}) | init.mean()),
        _filled(init.subword(letters) | init.mean()),
        _filled(init.similar(table, k=1, old_vectors=(OLD, torch.eye(3)))),
        _filled(init.vectors((NEW, torch.ones(3, 2)), align=None) | init.mean()),
        _filled(init.omp(table, k=1) | init.mean()),
    ]
    for info in infos:
        settings = tws.WarmStartSettings(_old_state(), ".*", {"embed.weight": info})
        print(tws.plan_warm_start(Model(), settings))
    settings = tws.WarmStartSettings(_old_state(), ".*", _at(_filled(init.mean())))
    report = tws.warm_start(Model(), settings)
    made: tws.NewRowsAccount = report["embed.weight"].new_rows
    assert made
    assert "oslo" in made.show("oslo")
    assert not report["head.weight"].new_rows


def _filled(way: Callable[..., torch.Tensor | tws.Mixture]) -> tws.VocabInfo:
    return tws.VocabInfo(NEW, old_vocab=OLD, backup_initializer=way)


def _at(info: tws.VocabInfo) -> dict[str, tws.VocabInfo]:
    return {"embed.weight": info}


def read_checkpoints(folder: Path) -> None:
    torch.save(_old_state(), folder / "old.pt")
    with tws.load_checkpoint(folder / "old.pt") as checkpoint:
        opened: tws.Checkpoint = checkpoint
        spec: tws.TensorSpec = opened.spec("embed.weight")
        shape: tuple[int, ...] = spec.shape
        two = opened.get_tensor("embed.weight", rows=slice(0, 2))
        some = opened.get_tensor("embed.weight", rows=[2, 0])
        assert shape == (3, 2)
        assert len(two) == len(some) == 2
        tables: dict[str, tws.KeyedTable] = dict(opened.tables())
        vocabularies: dict[str, tws.Vocabulary] = dict(opened.vocabularies())
        assert not tables
        assert not vocabularies
        opened.to_dataframe()
    names = [name for name, _ in tws.list_variables(folder / "old.pt")]
    assert names == ["embed.weight", "head.weight"]
    assert tws.load_variable(folder / "old.pt", "head.weight").tolist() == [[1, 1]]
    latest: str | None = tws.latest_checkpoint(folder)
    assert latest is None
    done: tws.Conversion = tws.convert(folder / "old.pt", folder / "new.safetensors")
    assert done.keys == ("embed.weight", "head.weight")
    found: tws.CheckpointDiff = tws.diff(folder / "old.pt", {"head.weight": torch.zeros(1, 2)})
    change: tws.TensorChange
    for change in found.changes:
        print(change.kind, change.key, change.norm_of_change)
    assert found
    assert found.count("removed") == 1


def keep_vocabularies(folder: Path) -> None:
    old = tws.Vocabulary.load(OLD)
    counts = {"rome": 3, "oslo": 2}
    day = datetime.date(2026, 1, 31)
    new: tws.Vocabulary = tws.update_vocabulary(old, counts, min_count=1, today=day)
    usage: tws.Usage | None = new.usage
    assert usage is not None
    assert usage.counts.sum() == 5
    seen: tws.VocabularyDiff = tws.diff_vocabularies(old, new, counts)
    share: float = seen.shares["new"]
    assert 0 < share < 1
    assert int(new.rows(["oslo"])) == 3
    assert len(new.fingerprint)
    new.save(folder / "cities.voc")
    torch.save(_old_state(), folder / "old.pt")
    tws.save_vocabularies(folder / "old.pt", {"embed.weight": OLD})
    for old_vocab in (tws.FROM_CHECKPOINT, tws.FROM_CHECKPOINT["embed.weight"]):
        info = tws.VocabInfo(NEW, old_vocab=old_vocab)
        tws.warm_start(Model(), tws.WarmStartSettings(folder / "old.pt", ".*", _at(info)))


def keep_settings(folder: Path) -> None:
    tws.save_settings(folder / "warmstart.toml", tws.WarmStartSettings("old.pt", [".*"]))
    settings = tws.load_settings(folder / "warmstart.toml")
    first = settings[0] if isinstance(settings, list) else settings
    assert first.vars_to_warm_start == [".*"]


def prove_a_port(_: Path) -> None:
    model = Model()
    cities = torch.tensor([0, 2])
    check: tws.PortCheck = tws.verify_port(model, [cities], model(cities).detach())
    assert check.ok
    assert check.first_departure is None


def use_tensorflows_helpers(_: Path) -> None:
    rows, present = tws.generate_vocab_remapping(NEW, OLD)
    out = torch.zeros(3, 2)
    tws.gather_rows(_old_state()["embed.weight"], rows, out)
    assert int(present) == 2
    assert out[0].equal(torch.tensor([2.0, 3.0]))
    matrix: torch.Tensor = tws.load_and_remap_matrix(
        _old_state(), "embed.weight", rows, None, [0.0, 0.0], 3, 2
    )
    table: torch.Tensor = tws.warmstart_embedding_matrix(OLD, NEW, matrix, "zeros")
    assert table.shape == (3, 2)
    model = Model()
    report = tws.init_from_checkpoint(model, _old_state(), {"embed.weight": model.embed.weight})
    assert report["embed.weight"].state == "copied"


def load_with_torchs_own_reader(folder: Path) -> None:
    # What is not known here is torch's own.
    from torch.distributed.checkpoint.state_dict_loader import (
        load,  # pyright: ignore[reportUnknownVariableType]
    )
    from torch.distributed.checkpoint.state_dict_saver import (
        save,  # pyright: ignore[reportUnknownVariableType]
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says that it is one process
        save(_old_state(), checkpoint_id=folder / "dcp")
        model = Model()
        planner = tws.load_planner(model, tws.WarmStartSettings(None))
        load(model.state_dict(), checkpoint_id=folder / "dcp", planner=planner)
    report: tws.WarmStartReport = planner.report()
    assert report.count("copied") == 2


def handle_errors(folder: Path) -> None:
    try:
        tws.warm_start(Model(), {"body": torch.zeros(1)})
    except tws.PlanError as error:
        problem: tws.Finding
        for problem in error.problems:
            print(problem.code, problem.hint)
    try:
        tws.load_checkpoint(folder / "nowhere.pt")
    except (tws.CheckpointNotFoundError, tws.CorruptCheckpointError, tws.UnsupportedError) as error:
        print(error)
    except (tws.StorageError, tws.MissingDependencyError, tws.MissingTensorError) as error:
        print(error)
    try:
        tws.Vocabulary.load(["a", "a"]).rows([1.5])
    except (tws.VocabularyError, tws.SettingsError, tws.CheckpointError) as error:
        print(error)
    try:
        tws.warm_start(Model(), _old_state())
    except tws.PartialWriteError as error:
        names: tuple[str, ...] = error.written + error.not_written
        print(names)
    except tws.WarmStartError as error:
        print(error)
    warnings.filterwarnings("error", category=tws.WarmStartWarning)
    assert tws.__version__


USES = (
    start_and_read_the_report,
    plan_then_apply,
    rename_by_every_kind_of_rule,
    change_rows_in_every_way,
    make_new_rows,
    read_checkpoints,
    keep_vocabularies,
    keep_settings,
    prove_a_port,
    use_tensorflows_helpers,
    load_with_torchs_own_reader,
    handle_errors,
)
