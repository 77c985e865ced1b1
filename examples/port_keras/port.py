"""Ports a model from Keras to PyTorch, from the file to the proof, without TensorFlow.

    pip install "torch-warmstart[keras]"
    python examples/port_keras/port.py

It takes some seconds, and fails if the port does not compute what Keras computed.
"""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch
from model import NO_DIGIT, FirstDraft, Reader

import torch_warmstart as tws

FOLDER = Path(os.path.relpath(Path(__file__).resolve().parent))  # shorter to read than absolute
CHECKPOINT, RECORD, RULES = (FOLDER / n for n in ("reader.keras", "recorded.npz", "rules.toml"))

Arrays = dict[str, np.ndarray]


def read_record() -> tuple[Arrays, Arrays]:
    """What was recorded from the original, and the layers of it by the model's own names."""
    with np.load(RECORD) as arrays:
        record = dict(arrays)
    start = "layers/"
    return record, {k.removeprefix(start): v for k, v in record.items() if k.startswith(start)}


def make_settings() -> tws.WarmStartSettings:
    # A list selects global variables, as in TensorFlow: the moving statistics are among them.
    return tws.WarmStartSettings(
        CHECKPOINT, [".*"], var_name_to_prev_var_name=tws.load_rules(RULES)
    )


# -- the parts of the port -------------------------------------------------------------------------


def show_names() -> None:
    section("1. Names")
    say(
        "Keras named the layers of the original by itself, the PyTorch model has names of its own. "
        "What belongs to what is proposed from the types of layers, shapes and names:"
    )
    print(f"{tws.suggest_names(Reader(), tws.WarmStartSettings(CHECKPOINT, ['.*']))}\n")
    say("Looked over and saved (save_rules), this is the rules file:")
    show(RULES.read_text(encoding="utf-8"))


def try_first_draft(record: Arrays, layers: Arrays) -> tws.PortCheck:
    section("2. A first draft")
    say(
        "With torch's usual padding and epsilon all weights fit, so the plan is content. What "
        "weights cannot tell is under the table, to be compared with the original program:"
    )
    model = FirstDraft()
    plan = tws.plan_warm_start(model, make_settings())
    print(f"{plan}\n")
    tws.apply_plan(plan)
    say("And indeed, it is not the same model. The first layer to depart says where to look:")
    check = tws.verify_port(model, record["inputs/0"], record["outputs"], layers=layers)
    print(f"{check}\n")
    return check


def port(record: Arrays, layers: Arrays) -> tuple[Reader, tws.PortCheck]:
    section("3. The port")
    say(
        "The reader of model.py pads as TensorFlow's SAME does, and has Keras' epsilon and "
        "momentum. Nothing is left to compare by hand:"
    )
    model = Reader()
    plan = tws.plan_warm_start(model, make_settings())
    print(f"{plan}\n")
    report = tws.apply_plan(plan)
    say(
        f"Of the {len(report.variables)} variables, only {' and '.join(report.missing_keys)} were "
        "not in the file, which TensorFlow has no counterpart for. The proof:"
    )
    check = tws.verify_port(model, record["inputs/0"], record["outputs"], layers=layers)
    print(f"{check}\n")
    return model, check


def read_pictures(model: Reader, record: Arrays) -> None:
    section("4. What it reads")
    with torch.no_grad():
        scores = model.eval()(torch.from_numpy(record["inputs/0"]))
    print("there is   read")
    for shown, found in zip(record["columns"], scores.argmax(-1).numpy(), strict=True):
        print(f"{spell(shown):10} {spell(found)}")


def spell(columns: np.ndarray) -> str:
    """The number that is shown in some columns: a digit is in several in a row."""
    digits = ["." if digit == NO_DIGIT else str(digit) for digit in columns]
    starts = [d for d, before in zip(digits, [".", *digits], strict=False) if d != before]
    return "".join(starts).replace(".", "")


# -- text ------------------------------------------------------------------------------------------


def section(title: str) -> None:
    print(f"{title}\n{'-' * len(title)}\n")


def say(text: str) -> None:
    print(f"{textwrap.fill(text, 100)}\n")


def show(text: str) -> None:
    print(textwrap.indent(text, "    "))


def main() -> int:
    torch.manual_seed(0)
    record, layers = read_record()
    show_names()
    draft = try_first_draft(record, layers)
    model, check = port(record, layers)
    read_pictures(model, record)
    return 0 if check and not draft else 1


if __name__ == "__main__":
    sys.exit(main())
