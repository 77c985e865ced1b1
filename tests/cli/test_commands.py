"""The commands that plan, save, suggest, convert, compare and explain, as a user calls them."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import torch_warmstart as tws
from torch_warmstart.cli.arguments import COMMANDS, make_parser
from torch_warmstart.cli.commands import explain

ROOT = Path(__file__).parents[2]
MODELS = """\
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 2)})

def other():
    return nn.ModuleDict({"embedding": nn.Embedding(4, 2), "top_head": nn.Linear(2, 2)})

nothing = int
"""
SETTINGS = """\
ckpt_to_initialize_from = "old.pt"

[var_name_to_vocab_info."embed.weight"]
new_vocab = ["c", "x", "a"]
new_vocab_size = 3
num_oov_buckets = 0
old_vocab = ["a", "b", "c", "d"]
"""


def old_state() -> dict[str, torch.Tensor]:
    return {
        "embed.weight": torch.arange(8.0).reshape(4, 2),
        "head.weight": torch.full((2, 2), 5.0),
        "head.bias": torch.ones(2),
    }


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with models, a checkpoint, and settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cli_models", raising=False)
    (tmp_path / "cli_models.py").write_text(MODELS)
    (tmp_path / "warmstart.toml").write_text(SETTINGS)
    torch.save(old_state(), tmp_path / "old.pt")


# -- plan and warm-start ---------------------------------------------------------------------------


def test_a_plan_is_shown(call):
    code, out, err = call("plan cli_models:make --settings warmstart.toml")
    assert (code, err) == (0, "")
    assert "rows: 2 copied (all moved), 1 initialised; 2 dropped" in out
    assert "3 variables: 1 remapped, 2 copied" in out


def test_the_command_line_counts_more_than_the_settings(call):
    torch.save({**old_state(), "head.bias": torch.ones(3)}, "other.pt")
    code, out, _ = call(
        "plan cli_models:make other.pt --settings warmstart.toml --on-mismatch keep --vars head"
    )
    assert code == 2  # the settings' vocabulary is for a variable that is not selected
    code, out, _ = call("plan cli_models:make other.pt --on-mismatch keep --vars head --json")
    states = {each["name"]: each["state"] for each in json.loads(out)["variables"]}
    assert code == 0
    assert states == {"embed.weight": "kept", "head.weight": "copied", "head.bias": "kept"}


def test_a_plan_with_problems_exits_with_2_and_lists_them(call):
    code, out, err = call("plan cli_models:make old.pt --json")
    document = json.loads(out)
    assert code == 2
    assert (document["version"], document["kind"], document["error"]) == (1, "error", "PlanError")
    assert [problem["code"] for problem in document["problems"]] == ["shape-mismatch"]
    assert err.startswith("torch-warmstart: The warm start from old.pt has 1 problem")


@pytest.mark.parametrize(("least", "code"), [("60", 0), ("66%", 0), ("67", 1), ("100", 1)])
def test_too_little_taken_exits_with_1(call, least, code):
    found, _, err = call(
        f"plan cli_models:make old.pt --on-mismatch keep --fail-under {least} --html p.html"
    )
    assert found == code
    assert ("2 of 3 selected variables are taken" in err) == bool(code)
    assert Path("p.html").read_text().startswith("<!DOCTYPE html>")


def test_nothing_is_written_without_apply(call):
    code, out, err = call("warm-start cli_models:make --settings warmstart.toml --out new.pt")
    assert code == 0
    assert out.startswith("Warm start from old.pt")
    assert "Nothing was written; --apply does what the plan says." in err
    assert not Path("new.pt").exists()


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_with_apply_the_state_is_saved(call, ending):
    where = f"new.{ending}"
    code, out, err = call(
        f"warm-start cli_models:make --settings warmstart.toml --out {where} --apply"
    )
    assert code == 0
    assert out.startswith("Warm-started from old.pt in ")
    assert err.strip() == f"Wrote {where} from old.pt: 3 tensors, 48 bytes"
    found = torch.load(where) if ending == "pt" else safetensors.torch.load_file(where)
    assert found["embed.weight"].tolist() == [[4, 5], [0, 0], [0, 1]]
    assert torch.equal(found["head.weight"], old_state()["head.weight"])


def test_a_file_that_is_there_stays_without_force(call):
    Path("new.pt").write_bytes(b"mine")
    command = "warm-start cli_models:make --settings warmstart.toml --out new.pt --apply"
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert "new.pt is there already" in err
    assert Path("new.pt").read_bytes() == b"mine"
    assert call(f"{command} --force")[0] == 0
    assert len(torch.load("new.pt")) == 3


def test_a_missed_threshold_writes_nothing(call):
    code, _, err = call(
        "warm-start cli_models:make old.pt --on-mismatch keep --fail-under 90 --out n.pt --apply"
    )
    assert code == 1
    assert "Nothing was written." in err
    assert not Path("n.pt").exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("warm-start cli_models:make old.pt --apply", "--apply needs --out FILE"),
        ("plan cli_models:make", "Name a checkpoint, or a file that does with --settings"),
        ("plan cli_models:nothing old.pt", "makes no torch.nn.Module, but int."),
        ("plan cli_models old.pt", "MODULE:CALLABLE, or as a directory with a config.json"),
        ("plan no_such:make old.pt", "There is no module 'no_such'"),
        ("plan cli_models:make nowhere.pt", "There is no checkpoint at nowhere.pt"),
        ("convert old.pt out.onnx", "the name's ending says what is written"),
        ("convert old.pt out.pt --rules r.toml", "are for a --model"),
        ("inspect old.pt --rows 0:1", "--rows chooses rows of --values, which is not given"),
        ("inspect old.pt --values head.bias --html p.html", "not for --values"),
        ("inspect old.pt --values head.bias --pattern head", "not for --values"),
        ("diff old.pt nowhere.pt", "There is no checkpoint at nowhere.pt"),
    ],
)
def test_an_error_of_ours_exits_with_2_on_stderr(call, command, message):
    code, out, err = call(command)
    assert (code, out) == (2, "")
    assert message in err


# -- suggest ---------------------------------------------------------------------------------------


def test_rules_are_suggested_written_and_used(call):
    code, out, err = call("suggest cli_models:other old.pt --out rules.toml")
    assert code == 0
    assert "Names for old.pt" in out
    assert err.strip() == "Wrote rules.toml: look at it, and pass it as --rules"
    rules = tws.load_rules("rules.toml")
    assert rules.names or rules.patterns
    assert call("plan cli_models:other old.pt --rules rules.toml")[0] == 0
    code, _, err = call("suggest cli_models:other old.pt --out rules.toml")
    assert (code, "rules.toml is there already" in err) == (2, True)


def test_names_are_suggested_for_the_entry_that_is_named(call):
    torch.save({"student": old_state(), "teacher": old_state()}, "both.pt")
    code, _, err = call("suggest cli_models:other both.pt")
    assert code == 2
    assert "--entry student or --entry teacher" in err
    code, out, _ = call("suggest cli_models:other both.pt --entry teacher")
    assert (code, "embed.weight" in out) == (0, True)


def test_a_dry_run_of_suggest_writes_nothing(call):
    code, _, err = call("suggest cli_models:other old.pt --out rules.toml --dry-run")
    assert (code, err.strip()) == (0, "Would write rules.toml")
    assert not Path("rules.toml").exists()


# -- convert ---------------------------------------------------------------------------------------


def test_a_checkpoint_is_converted(call):
    code, out, err = call("convert old.pt out.safetensors --pattern ^head")
    assert (code, err) == (0, "")
    assert out == "Wrote out.safetensors from old.pt: 2 tensors, 24 bytes\n"
    assert set(safetensors.torch.load_file("out.safetensors")) == {"head.weight", "head.bias"}


def test_a_model_is_converted(call):
    code, out, _ = call(
        "convert old.pt out.safetensors --model cli_models:make --settings warmstart.toml --json"
    )
    assert code == 0
    document = json.loads(out)
    assert (document["kind"], document["written"]) == ("conversion", True)
    found = safetensors.torch.load_file("out.safetensors")
    assert found["embed.weight"].tolist() == [[4, 5], [0, 0], [0, 1]]


def test_a_model_is_converted_from_the_entry_that_is_named(call):
    averages = {name: tensor + 1 for name, tensor in old_state().items()}
    torch.save({"model": old_state(), "ema": averages}, "both.pt")
    command = "convert both.pt out.safetensors --settings warmstart.toml --model cli_models:make"
    assert call(f"{command} --entry ema")[0] == 0
    found = safetensors.torch.load_file("out.safetensors")
    assert found["head.weight"].tolist() == [[6, 6], [6, 6]]
    assert call(f"{command} --entry nowhere --force")[0] == 2
    assert call(f"{command} --format safetensors --force")[0] == 2


@pytest.mark.parametrize("lines", ['entry = "ema"', ""], ids=["a file says another", "no file"])
def test_what_the_line_says_of_a_checkpoint_counts_for_a_model_too(call, lines):
    ours = {name: tensor[:3] for name, tensor in old_state().items()}
    theirs = {name: torch.full_like(tensor, 9) for name, tensor in ours.items()}
    torch.save({"model": ours, "ema": theirs}, "two.pt")
    Path("s.toml").write_text(lines)
    settings = "--settings s.toml" * bool(lines)
    command = f"convert two.pt out.pt --model cli_models:make {settings}"
    assert call(f"{command} --entry model --no-verify --filesystem fsspec")[0] == 0
    assert torch.load("out.pt")["embed.weight"].equal(ours["embed.weight"])
    assert call(f"{command} --format npz --force")[0] == 2


def test_the_line_counts_more_than_the_file_for_how_a_checkpoint_is_opened(call, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # whose gfile would open it
    ours = {name: tensor[:3] for name, tensor in old_state().items()}
    theirs = {name: torch.full_like(tensor, 9) for name, tensor in ours.items()}
    torch.save({"model": ours, "ema": theirs}, "two.pt")
    Path("s.toml").write_text('entry = "ema"\nfilesystem = "gfile"')
    command = "convert two.pt out.pt --model cli_models:make --settings s.toml"
    assert call(f"{command} --entry model --no-verify --filesystem auto")[0] == 0
    assert torch.load("out.pt")["embed.weight"].equal(ours["embed.weight"])


def test_a_pattern_that_nothing_matches_converts_nothing(call):
    code, _, err = call("convert old.pt out.pt --pattern hed.weight")
    assert code == 1
    assert "None of 3 tensors matches 'hed.weight'. Did you mean 'head.weight'" in err
    assert not Path("out.pt").exists()


def test_a_dry_run_of_convert_writes_nothing(call):
    code, out, _ = call("convert old.pt out.pt --dry-run")
    assert (code, out) == (0, "Would write out.pt from old.pt: 3 tensors, 56 bytes\n")
    assert not Path("out.pt").exists()


# -- diff ------------------------------------------------------------------------------------------


def test_entries_of_two_checkpoints_are_compared(call):
    other = {name: tensor + 1 for name, tensor in old_state().items()}
    torch.save({"student": old_state(), "teacher": old_state()}, "monday.pt")
    torch.save({"student": other, "teacher": old_state()}, "tuesday.pt")
    code, _, err = call("diff monday.pt tuesday.pt")
    assert code == 2
    assert "--entry student or --entry teacher" in err
    assert call("diff monday.pt tuesday.pt --entry teacher")[0] == 0
    assert call("diff monday.pt tuesday.pt --entry student")[0] == 1


def test_equal_checkpoints_exit_with_0_and_others_with_1(call):
    torch.save({**old_state(), "head.bias": torch.zeros(2)}, "new.pt")
    assert call("diff old.pt old.pt")[:2] == (
        0,
        "old.pt -> old.pt\n\nNothing differs: 3 tensors equal\n",
    )
    code, out, err = call("diff old.pt new.pt --stat")
    assert (code, out, err) == (1, "1 of other values; 2 tensors equal\n", "")
    document = json.loads(call("diff old.pt new.pt --json")[1])
    assert [change["key"] for change in document["changes"]] == ["head.bias"]
    assert call("diff old.pt new.pt --no-values")[0] == 0


# -- inspect, explain, completion ------------------------------------------------------------------


def test_what_a_file_holds_besides_is_listed(call):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, "t.pt"
    )
    code, out, _ = call("inspect t.pt")
    assert code == 0
    assert "Optimizer optimizer: state of 2 parameters: step, exp_avg, exp_avg_sq\n" in out
    assert "Besides epoch: 3\n" in out
    document = json.loads(call("inspect t.pt --json")[1])
    assert document["optimizers"][0]["slots"] == ["step", "exp_avg", "exp_avg_sq"]


def test_keras_layers_are_listed_by_name(call):
    pytest.importorskip("h5py")
    reader = ROOT / "examples" / "port_keras" / "reader.keras"
    document = json.loads(call(f"inspect {reader} --json")[1])
    layers = {each["layer"] for each in document["tensors"]}
    assert any("(" in layer for layer in layers)
    assert "layer" in call(f"inspect {reader}")[1].splitlines()[2].split()


def test_values_are_a_document_too(call):
    document = json.loads(call("inspect old.pt --values head.bias --json")[1])
    assert (document["kind"], document["values"], document["rows"]) == ("values", [1, 1], [0, 1])


def test_a_code_is_explained(call):
    code, out, _ = call("explain shape-mismatch")
    assert code == 0
    assert out.startswith("shape-mismatch (error)\n\nWhen: the shapes differ\n\nDo:   ")
    code, out, err = call("explain shape-mismach")
    assert (code, out.strip()) == (1, "")
    assert "Did you mean 'shape-mismatch'" in err


def test_every_code_of_the_page_is_explained(call):
    page = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    table = page.partition("\n## ")[0]
    listed = re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)
    assert list(explain.explanations()) == listed
    code, out, _ = call("explain")
    assert code == 0
    assert all(each in out.replace("\n  ", "") for each in listed)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_options(call, shell):
    code, script, _ = call(f"completion {shell}")
    assert code == 0
    assert all(word in script for command in COMMANDS for word in command.name.split())
    if shell == "bash":
        assert "--fail-under" in script
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_what_was_begun(call):
    script = call("completion bash")[1]
    ask = (
        f"{script}\nCOMP_WORDS=(torch-warmstart warm-start --fa); COMP_CWORD=2; _torch_warmstart; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "--fail-under"


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *(command.name for command in COMMANDS)])
def test_help_is_one_screen_with_an_example(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stopped:
        make_parser().parse_args([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert stopped.value.code == 0
    assert len(text.splitlines()) <= 40
    assert max(map(len, text.splitlines())) <= 80
    if command:
        assert f"example:\n  torch-warmstart {command} " in text


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("inspect old.pt", "checkpoint"),
        ("plan cli_models:make --settings warmstart.toml", "plan"),
        ("warm-start cli_models:make --settings warmstart.toml --out o.pt --apply", "report"),
        ("suggest cli_models:other old.pt", "suggestions"),
        ("convert old.pt o.pt --dry-run", "conversion"),
        ("diff old.pt old.pt", "diff"),
        ("explain settings", "codes"),
        ("completion bash", "completion"),
    ],
)
def test_json_is_one_document_with_a_version(call, command, kind):
    code, out, _ = call(f"{command} --json")
    document = json.loads(out)
    assert (code, document["version"], document["kind"]) == (0, 1, kind)


def test_a_hugging_face_directory_is_a_model(call):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        architectures=["BertModel"],
    )
    model = transformers.BertModel(config)
    config.save_pretrained("hf")
    torch.save(model.state_dict(), "bert.pt")
    code, out, _ = call("plan hf bert.pt --fail-under 100")
    assert code == 0
    assert "copied" in out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architectures": ["BertMadel"]}, "names the architecture 'BertMadel', which is no model"),
        ({"architectures": ["pipeline"]}, "names the architecture 'pipeline', which is no model"),
        ({"architectures": ["AutoModel"]}, "names the architecture 'AutoModel', which is no model"),
        ({"architectures": [5]}, "names the architecture 5, which is no model"),
        ({"architectures": "BertModel"}, "names the architecture '(none)', which is no model"),
        ({"architectures": ["GPT2Model"]}, "describes no model: AttributeError: 'BertConfig'"),
        ({"hidden_act": "nope"}, "describes no model: KeyError: 'nope'"),
        (
            {"model_type": "detr", "architectures": ["DetrModel"], "use_timm_backbone": False}
            | {"backbone": "someone/resnet"},
            "needs another repository of the hub for its model, and nothing is fetched",
        ),
    ],
    ids=["unknown", "function", "auto", "number", "text", "other", "activation", "fetched"],
)
def test_a_hugging_face_directory_that_makes_no_model_is_told(call, config, message, monkeypatch):
    """It may come from anywhere: it runs nothing but a model's class, and fetches nothing."""
    pytest.importorskip("transformers")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    written = {"model_type": "bert", "architectures": ["BertModel"], **config}
    Path("hf").mkdir()
    Path("hf/config.json").write_text(json.dumps(written))
    code, _, err = call("plan hf bert.pt")
    assert code == 2
    assert message in err
    assert constants.HF_HUB_OFFLINE is False
    assert "HF_HUB_OFFLINE" not in os.environ


def test_a_hugging_face_directory_names_no_kernel_that_is_run(call, monkeypatch):
    transformers = pytest.importorskip("transformers")
    asked = []
    monkeypatch.setattr(
        transformers.modeling_utils,
        "lazy_import_flash_attention",
        lambda *given, **_: asked.append(given),
        raising=False,
    )
    sizes = dict.fromkeys(("hidden_size", "num_attention_heads", "intermediate_size"), 4)
    sizes |= {"num_hidden_layers": 1, "vocab_size": 8, "attn_implementation": "someone/kernel"}
    Path("hf").mkdir()
    Path("hf/config.json").write_text(
        json.dumps({"model_type": "bert", "architectures": ["BertModel"], **sizes})
    )
    _, _, err = call("plan hf bert.pt")
    assert asked == []
    assert "describes no model" not in err


def test_on_a_terminal_there_are_colours_and_nothing_else_changes(call, monkeypatch):
    plain = call("plan cli_models:make --settings warmstart.toml")[1]
    monkeypatch.setattr(
        importlib.import_module("torch_warmstart.cli.running"), "are_shown", lambda _: True
    )
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured = call("plan cli_models:make --settings warmstart.toml")[1]
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == plain
