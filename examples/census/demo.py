"""Warm-starts a PyTorch model from TensorFlow's day-one classifier, and shows what it is worth.

    pip install "torch-warmstart[demo]"
    python examples/census/demo.py --out demo_out

It needs no TensorFlow, takes some seconds on a laptop's processor, and leaves a plot and a
`result.json` in the output folder. It fails if the logits are not TensorFlow's.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from model import (
    BATCH_SIZE,
    EVALUATE_EVERY,
    FEATURES,
    LEARNING_RATE,
    NUM_CLASSES,
    NUM_OOV_BUCKETS,
    CensusClassifier,
    Score,
    draw_embedding,
    read_labelled,
    read_table,
    read_vocabulary,
    to_floats,
    to_people,
    train,
)
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

import torch_warmstart as tws

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = Path(os.path.relpath(Path(__file__).resolve().parent))  # shorter to read than absolute
DAY1_MODEL = FOLDER / "day1_model"
LOGIT_TOLERANCE = 1e-5  # some roundings of float32; the logits themselves reach 9
SEED = 0

STEPS = 250  # longer, and the cold model only overfits
TABLE_SHARES = (0, 0.04, 0.08, 0.2, 0.4, 0.6, 0.8, 1)  # which of the scores the table shows

COLD, WARM, BY_POSITION = "cold", "warm", "by position"
COLOURS = {COLD: "#2b6cb0", WARM: "#c2410c", BY_POSITION: "#8a8f98"}
INK, FAINT = "#2d3138", "#e3e5e8"

Curves = dict[str, list[Score]]
Vocabularies = dict[str, list[str]]

console = Console(highlight=False, markup=False)


# -- what has changed since day one ----------------------------------------------------------------


def vocabulary_path(day: str, name: str) -> Path:
    return FOLDER / f"{day}_{name}.txt"


def embedding_key(name: str) -> str:
    """What TensorFlow's feature columns call an embedding."""
    return f"dnn/input_from_feature_columns/input_layer/{name}_embedding/embedding_weights"


def make_settings() -> tws.WarmStartSettings:
    """What changed since day one: two vocabularies, and where embeddings and batch norms are."""
    generator = torch.Generator().manual_seed(SEED)
    vocabularies, names = {}, {}
    for feature in FEATURES:
        variable = f"{feature}_embedding.weight"
        names[variable] = embedding_key(feature)
        vocabularies[variable] = tws.VocabInfo(
            new_vocab=vocabulary_path("day2", feature),
            new_vocab_size=-1,  # all of it
            num_oov_buckets=NUM_OOV_BUCKETS,
            old_vocab=vocabulary_path("day1", feature),
            backup_initializer=draw_embedding,  # for tokens that are new
            generator=generator,
        )
    for i in range(2):
        ours, theirs = f"dnn.batchnorm_{i}", f"dnn/hiddenlayer_{i}/batchnorm_{i}"
        names[f"{ours}.weight"] = f"{theirs}/gamma"
        names[f"{ours}.bias"] = f"{theirs}/beta"
        names[f"{ours}.running_mean"] = f"{theirs}/moving_mean"
        names[f"{ours}.running_var"] = f"{theirs}/moving_variance"
    # A list selects global variables, as in TensorFlow: the moving statistics are among them.
    return tws.WarmStartSettings(DAY1_MODEL, [".*"], vocabularies, names)


# -- the parts of the demo -------------------------------------------------------------------------


def show_what_there_is(days: Mapping[str, Vocabularies]) -> None:
    section("1. What there is")
    tensors = tws.list_variables(DAY1_MODEL)
    slots = sum("Adam/" in key for key, _ in tensors)
    say(
        "Day one: TensorFlow trained a DNNClassifier on a small census and left this checkpoint. "
        f"Of its {len(tensors)} tensors, {slots} are the optimizer's."
    )
    show("\n".join(sorted(str(path) for path in DAY1_MODEL.iterdir())))
    say(
        "Day two: the vocabularies were counted anew. Tokens came and went, and as the most "
        "frequent come first, hardly any of the others kept its row:"
    )
    headings = ("vocabulary", "day one", "day two", "on both", "dropped", "new", "in same row")
    table = make_table(headings)
    for feature in FEATURES:
        old, new = days["day1"][feature], days["day2"][feature]
        both = len(set(old) & set(new))
        same = sum(a == b for a, b in zip(old, new, strict=False))
        counts = (len(old), len(new), both, len(old) - both, len(new) - both, same)
        table.add_row(feature, *(str(count) for count in counts))
    show_table(table)


def show_model_and_settings(model: CensusClassifier) -> tws.WarmStartSettings:
    section("2. A PyTorch model, and what to tell the warm start")
    say(
        "The model of day two is written in plain PyTorch. Its tables have day two's sizes, and "
        f"{NUM_OOV_BUCKETS} rows more for tokens on no list:"
    )
    show(str(model))
    say(
        "Only what has changed needs saying. The dense layers are not mentioned: "
        "`dnn.hiddenlayer_0.weight` finds `dnn/hiddenlayer_0/kernel`, and is transposed, by itself."
    )
    show(inspect.getsource(make_settings))
    return make_settings()


def show_warm_start(
    model: CensusClassifier, settings: tws.WarmStartSettings
) -> tws.WarmStartReport:
    section("3. Plan, then warm-start")
    say("A plan changes nothing. It says what would become of every variable, and of every row:")
    plan = tws.plan_warm_start(model, settings)
    print(f"{plan}\n")
    say("Carried out, it accounts for every variable, every row and every tensor left over:")
    report = tws.apply_plan(plan)
    print(f"{report}\n")
    return report


@dataclass(frozen=True)
class LogitCheck:
    """How far the warm-started model is from TensorFlow's day-one classifier."""

    rows: int
    max_abs_error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.rows > 0 and self.max_abs_error <= self.tolerance


def check_logits(model: CensusClassifier, days: Mapping[str, Vocabularies]) -> LogitCheck:
    section("4. Is it the same model?")
    table = read_table(FOLDER / "recorded_logits.csv")
    recorded = torch.stack([to_floats(table[f"logit_{i}"]) for i in range(NUM_CLASSES)], dim=1)
    say(
        f"TensorFlow's logits for {len(recorded)} people were written down on day one. Where both "
        "tokens are on both days' lists, the warm-started model must give the same ones. (The "
        "others have a token whose row is new, or is shared by all that are on no list.)"
    )
    known = on_both_lists(table, days)
    model.eval()
    with torch.no_grad():
        logits = model(to_people(table, days["day2"])[known])
    error = (logits - recorded[known]).abs().max().item()
    check = LogitCheck(int(known.sum()), error, LOGIT_TOLERANCE)
    verdict = "OK" if check.passed else "FAIL"
    show(
        f"{check.rows} people compared: largest error {error:.1e}, "
        f"tolerance {LOGIT_TOLERANCE:.0e}: {verdict}"
    )
    return check


def on_both_lists(
    table: Mapping[str, Sequence[str]], days: Mapping[str, Vocabularies]
) -> torch.Tensor:
    """A mask of the people whose tokens are all on both days' lists."""
    listed = {name: set(days["day1"][name]) & set(days["day2"][name]) for name in FEATURES}
    columns = [[token in listed[name] for token in table[name]] for name in FEATURES]
    return torch.tensor(columns).all(dim=0)


def compare_training(
    models: Mapping[str, CensusClassifier], days: Mapping[str, Vocabularies], steps: int
) -> Curves:
    section("5. What it is worth")
    training = read_labelled(FOLDER / "day2_train.csv", days["day2"])
    held_out = read_labelled(FOLDER / "day2_eval.csv", days["day2"])
    say(
        f"Three models learn from the same {len(training):,} people of day two, in the same order "
        "and with the same Adam. One starts cold, with embeddings drawn as TensorFlow draws them; "
        "one starts warm. The third is what copying by hand gives: all of day one's weights, but "
        f"row i of a table from row i. Every {EVALUATE_EVERY} steps they are scored on "
        f"{len(held_out):,} other people."
    )
    curves = {
        name: train(model, training, held_out, steps=steps, seed=SEED)
        for name, model in models.items()
    }
    show_table(make_score_table(curves))
    return curves


def copy_by_position(model: CensusClassifier) -> CensusClassifier:
    """The mistake that the vocabularies are for: old row i becomes new row i."""
    careless = copy.deepcopy(model)
    for feature in FEATURES:
        old = tws.load_variable(DAY1_MODEL, embedding_key(feature))
        with torch.no_grad():
            careless.get_parameter(f"{feature}_embedding.weight")[: len(old)] = old
    return careless


# -- how many steps are saved ----------------------------------------------------------------------


@dataclass(frozen=True)
class Savings:
    """When the warm model is as good as the cold one ever gets."""

    cold_best: Score
    warm_best: Score
    warm_reached: Score | None  # the first score as good as cold_best

    @property
    def times_fewer_steps(self) -> float | None:
        """None where there is no ratio: never reached, or reached before the first step."""
        if self.warm_reached is None or self.warm_reached.step == 0:
            return None
        return self.cold_best.step / self.warm_reached.step

    def __str__(self) -> str:
        best = f"the cold model's best loss ({self.cold_best.loss:.3f}, at step "
        best += f"{self.cold_best.step})"
        if self.warm_reached is None:
            return f"The warm model did not reach {best}."
        if self.times_fewer_steps is None:
            return f"The warm model was below {best} before its first step."
        return (
            f"The warm model reached {best} at step {self.warm_reached.step}: "
            f"{self.times_fewer_steps:.1f} times fewer steps."
        )


def find_savings(curves: Curves) -> Savings:
    best = {name: min(scores, key=lambda s: s.loss) for name, scores in curves.items()}
    reached = (score for score in curves[WARM] if score.loss <= best[COLD].loss)
    return Savings(best[COLD], best[WARM], next(reached, None))


def show_savings(curves: Curves, savings: Savings) -> None:
    say(str(savings))
    careless, nothing = curves[BY_POSITION][0].loss, curves[COLD][0].loss
    say(
        f"Its own best is {savings.warm_best.loss:.3f}. Copied by position, the same weights start "
        f"at {careless:.2f}, where a cold start has {nothing:.2f}. (All with one seed; "
        "examples/README.md says what other seeds and learning rates give.)"
    )


# -- output ----------------------------------------------------------------------------------------


def section(title: str) -> None:
    console.rule(title, align="left")
    console.print()


def say(text: str) -> None:
    """Prints a paragraph, wrapped to the terminal."""
    console.print(f"{text}\n")


def show(text: str) -> None:
    """Prints lines as they are, indented."""
    print(textwrap.indent(text.rstrip(), "    ") + "\n")


def show_table(table: Table) -> None:
    console.print(Padding(table, (0, 0, 0, 3), expand=False))
    console.print()


def make_table(columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if table.columns else "left")
    return table


def make_score_table(curves: Curves) -> Table:
    """Loss and accuracy of every model at some of the steps."""
    headings = [f"{name}\n{what}" for name in curves for what in ("loss", "accuracy")]
    table = make_table(["step", *headings])
    moments = list(zip(*curves.values(), strict=True))
    last = len(moments) - 1
    for at in sorted({round(last * share) for share in TABLE_SHARES}):
        scores = moments[at]
        cells = [text for s in scores for text in (f"{s.loss:.3f}", f"{s.accuracy:.1%}")]
        table.add_row(str(scores[0].step), *cells)
    return table


def write_result(
    path: Path,
    report: tws.WarmStartReport,
    check: LogitCheck,
    curves: Curves,
    savings: Savings,
) -> None:
    """Writes everything that was found out, for programs to read."""
    result = {
        "logits": asdict(check),
        "training": {"learning_rate": LEARNING_RATE, "batch_size": BATCH_SIZE, "seed": SEED},
        "curves": {name: [asdict(s) for s in scores] for name, scores in curves.items()},
        "savings": {**asdict(savings), "times_fewer_steps": savings.times_fewer_steps},
        "report": report.to_dict(),
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


# -- the plot --------------------------------------------------------------------------------------


def save_plot(path: Path, curves: Curves, savings: Savings) -> None:
    """Draws the losses over the steps; the curves are labelled where they are, not in a legend."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only the plot needs it

    figure = Figure(figsize=(8.4, 5.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    dress(axes, curves)
    for name in (BY_POSITION, COLD, WARM):  # the last is drawn on top
        steps, losses = zip(*((s.step, s.loss) for s in curves[name]), strict=True)
        axes.plot(steps, losses, color=COLOURS[name], linewidth=2.4 if name == WARM else 2)
    label_curves(axes, curves)
    mark_savings(axes, savings)
    figure.savefig(path)


def dress(axes: Axes, curves: Curves) -> None:
    """Title, scales and frame. The start by position is far above, and would flatten the rest."""
    lowest = min(score.loss for scores in curves.values() for score in scores)
    steps = curves[COLD][-1].step
    axes.set_ylim(0.8 * lowest, 1.1 * curves[COLD][0].loss)
    axes.set_xlim(-0.02 * steps, 1.01 * steps)
    axes.set_title(
        "Day two, started from day one's TensorFlow checkpoint",
        loc="left", fontsize=14, fontweight="bold", color=INK, pad=14,
    )  # fmt: skip
    axes.set_xlabel(f"training steps (batches of {BATCH_SIZE})", fontsize=11.5, color=INK)
    axes.set_ylabel("loss on held-out people", fontsize=11.5, color=INK)
    axes.tick_params(labelsize=10.5, colors=INK, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK)


def label_curves(axes: Axes, curves: Curves) -> None:
    """Names each curve beside a part of it where nothing else is."""
    start = curves[BY_POSITION][0].loss
    labels = {
        BY_POSITION: (0.34, 14, f"rows copied by position (starts at {start:.1f})"),
        COLD: (0.16, -16, "cold start"),
        WARM: (0.62, -18, "warm start"),
    }
    for name, (share, offset, text) in labels.items():
        scores = curves[name]
        score = scores[round(share * (len(scores) - 1))]
        axes.annotate(
            text, (score.step, score.loss), xytext=(0, offset), textcoords="offset points",
            color=COLOURS[name], fontsize=12, fontweight="bold", va="center",
            ha="right" if name == COLD else "left",
        )  # fmt: skip


def mark_savings(axes: Axes, savings: Savings) -> None:
    """An arrow from the cold model's best loss back to where the warm one was that good."""
    reached, best = savings.warm_reached, savings.cold_best
    if reached is None or savings.times_fewer_steps is None:
        return
    for score, name in ((reached, WARM), (best, COLD)):
        axes.plot(score.step, score.loss, "o", color=COLOURS[name], markersize=8, mec="white")
    axes.annotate(
        "", (reached.step, best.loss), (best.step, best.loss),
        arrowprops={"arrowstyle": "->", "color": INK, "shrinkA": 7, "shrinkB": 7},
    )  # fmt: skip
    axes.annotate(
        f"{savings.times_fewer_steps:.1f} times fewer steps "
        f"to {best.loss:.3f}, the cold start's best",
        ((reached.step + best.step) / 2, best.loss), xytext=(0, -13), textcoords="offset points",
        color=INK, fontsize=11, ha="center", va="center",
    )  # fmt: skip


# -- main ------------------------------------------------------------------------------------------


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("demo_out"), help="the output folder")
    parser.add_argument("--steps", type=int, default=STEPS, help="training steps of each model")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error("--steps must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the demo; returns 1 if the logits are not TensorFlow's."""
    options = parse_arguments(arguments)
    torch.set_num_threads(1)  # for so small a model a second thread costs more than it brings
    torch.manual_seed(SEED)
    days = {
        day: {name: read_vocabulary(vocabulary_path(day, name)) for name in FEATURES}
        for day in ("day1", "day2")
    }
    show_what_there_is(days)
    cold = CensusClassifier({name: len(tokens) for name, tokens in days["day2"].items()})
    settings = show_model_and_settings(cold)
    warm = copy.deepcopy(cold)
    report = show_warm_start(warm, settings)
    check = check_logits(warm, days)
    if not check.passed:
        return 1
    models = {COLD: cold, WARM: warm, BY_POSITION: copy_by_position(warm)}
    curves = compare_training(models, days, options.steps)
    savings = find_savings(curves)
    show_savings(curves, savings)

    section("6. What is left to look at")
    options.out.mkdir(parents=True, exist_ok=True)
    plot, result = options.out / "loss_curves.png", options.out / "result.json"
    write_result(result, report, check, curves, savings)
    save_plot(plot, curves, savings)
    say("The losses as a plot, and all of the above for programs:")
    show(f"{os.path.relpath(plot)}\n{os.path.relpath(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
