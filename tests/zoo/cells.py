"""A cell of the zoo: a model in a format, and what a warm start of its twin makes of it."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from zoo.models import Animal
from zoo.tape import Tape, Twin, folders_of, record

import torch_warmstart as tws

FORMATS = ("keras", "weights.h5", "h5", "checkpoint", "saved_model")
TOLERANCE = 1e-5
TOLD = ("setting-untold", "layout-presumed")


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: "same", "refused", "cannot", "told" or "wrong"."""

    verdict: str
    why: str = ""


def build(animal: Animal, keras: Any) -> Tape:
    """A model of the zoo with weights of which no two are alike."""
    tape = record(keras, animal.build)
    if animal.after is not None:
        animal.after(tape.model)
    rng = np.random.default_rng(11)
    for weight in tape.model.weights:
        if "int" not in str(weight.dtype):
            weight.assign(rng.uniform(0.2, 1, weight.shape) * rng.choice([-1, 1], weight.shape)
                          if "variance" not in str(getattr(weight, "path", weight.name))
                          else rng.uniform(0.2, 1, weight.shape))  # fmt: skip
    return tape


def inputs_of(tape: Tape) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [_input(rng, tape, number) for number in tape.inputs]


def _input(rng: Any, tape: Tape, number: int) -> np.ndarray:
    shape = (2, *tuple(tape.tensors[number].shape)[1:])
    embeds = any(number in call.inputs and type(call.callee).__name__ == "Embedding"
                 for call in tape.calls)  # fmt: skip
    found = rng.integers(0, 4, shape) if embeds else rng.normal(size=shape)
    return np.asarray(found, "float32")


def save(tape: Tape, library: str, suffix: str, folder: Path) -> str:
    """Writes a model in a format; the path of what is there then."""
    import tensorflow as tf

    path = str(folder / f"m.{suffix}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if suffix == "checkpoint":
            return str(tf.train.Checkpoint(model=tape.model).write(str(folder / "ckpt")))
        if suffix == "saved_model":
            path = str(folder / "saved")
            if library == "keras":
                tape.model.export(path, verbose=False)
            else:
                tape.model.save(path)
        elif suffix == "weights.h5":
            tape.model.save_weights(path)
        else:
            tape.model.save(path)
    return path


def outcome(animal: Animal, tape: Tape, library: str, suffix: str, path: str) -> Outcome:
    """Warm-starts the twin and compares it with the model."""
    torch.manual_seed(3)
    twin = Twin(tape).eval()
    _randomise(twin)
    if animal.wrap is not None:
        animal.wrap(twin.get_submodule("d"))
    rules = dict(folders_of(tape)) if (library, suffix) == ("tf_keras", "weights.h5") else None
    settings = tws.WarmStartSettings(path, [".*"], None, rules)
    try:
        plan = tws.plan_warm_start(twin, settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tws.WarmStartWarning)
            tws.apply_plan(plan)
    except tws.WarmStartError as error:
        return Outcome("cannot" if animal.cannot else "refused", str(error))
    given = inputs_of(tape)
    expected = _outputs(tape.model(given if len(given) > 1 else given[0]))
    with torch.no_grad():
        found = twin(*map(torch.tensor, given)).numpy()
    error = float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))
    if error <= TOLERANCE:
        return Outcome("same", str(error))
    layer = animal.told or animal.cannot
    audits = [audit for audit in plan.audits if layer and layer in audit.modules]
    notes = [n for n in plan.notes if n.code in TOLD and n.subject.partition(".")[0] == layer]
    if audits or notes:
        return Outcome("told", str([*audits, *notes][0]))
    return Outcome("wrong", f"{error:.3g} apart\n{plan}")


def _randomise(twin: torch.nn.Module) -> None:
    """Nothing that is left as it was may look as if it had been filled; but what has no effect."""
    for module in twin.modules():
        is_norm = isinstance(module, torch.nn.modules.batchnorm._NormBase | torch.nn.LayerNorm
                             | torch.nn.GroupNorm | torch.nn.RMSNorm)  # fmt: skip
        for parameter in module.parameters(recurse=False):
            if not is_norm:
                torch.nn.init.normal_(parameter)


def _outputs(found: Any) -> np.ndarray:
    if isinstance(found, list | tuple):
        return np.concatenate([np.asarray(each).reshape(len(each), -1) for each in found], 1)
    return np.asarray(found)


def count(outcomes: dict[tuple[str, str, str], Outcome]) -> str:
    """One line for a run."""
    counts = Counter(each.verdict for each in outcomes.values())
    return (
        f"{len(outcomes)} cells: {counts['same']} the same, {counts['refused']} refused, "
        f"{counts['cannot']} refused as torch has no such layer, {counts['told']} told by an "
        f"audit, {counts['wrong']} silently wrong"
    )
