"""Makes every other file of this folder: two days of a small census-like world.

Day one is trained by a real ``tf.estimator.DNNClassifier``; its checkpoint and some of its logits
are kept. By day two the vocabularies have changed. The demo needs only the files, so TensorFlow is
needed only here. ``tf.estimator`` left TensorFlow after 2.15, which wants Python 3.11 at most::

    python3.11 -m venv estimator-env
    estimator-env/bin/pip install "tensorflow-cpu==2.15.1" "numpy<2"
    estimator-env/bin/python examples/census/make_fixture.py

Everything is seeded: the text files come out the same byte for byte, and so do the weights on the
same kind of processor (other instruction sets round differently).
"""

from __future__ import annotations

import csv
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
import tensorflow as tf

FOLDER = Path(__file__).resolve().parent
SEED = 3  # of the few tried, the one whose three classes are about equally frequent
DAYS = ("day1", "day2")

# The world.
VOCABULARY_SIZES = {"occupation": 240, "city": 360}  # on day one
LATENT_SIZE = 3
TEACHER_UNITS = 16
N_CLASSES = 3
SHARPNESS = 10.0  # how rarely the label contradicts the teacher's best class
DROPPED, ADDED, UNLISTED = 0.15, 0.20, 0.10  # shares of the size of day one's vocabulary
FADED = 0.03  # what is left of a dropped token's popularity on day two

# Day one's model.
EMBEDDING_SIZE = 16
HIDDEN_UNITS = (32, 16)
NUM_OOV_BUCKETS = 2
BATCH_SIZE = 256
# The estimator's batch norm keeps 0.999 of its moving statistics per step: they need thousands.
TRAIN_STEPS = 8000

# Rows. A day's log is what its vocabulary is counted from; only day one's is trained on whole.
LOG_ROWS = 100_000
DAY1_EVAL_ROWS = 10_000
DAY2_TRAIN_ROWS = 3500
DAY2_EVAL_ROWS = 1000
RECORDED_ROWS = 300
RECORDED_STRANGERS = 30  # of these, per feature, with a token that day two does not list

# Compound words are made of these: every first part with every second one.
OCCUPATION_WORDS = (
    "night_shift|part_time|seasonal|senior|junior|freelance|travelling|harbour|hospital|railway"
    "|mountain|municipal|industrial|garden|self employed|on call|intérim|fjällets|städtische",
    "nurse|welder|baker|teacher|plumber|surveyor|librarian|pilot|carpenter|translator|beekeeper"
    "|optician|cook|glazier|miller|pâtissier|façadier|Gärtner",
)
CITY_WORDS = (
    "alder|birch|cedar|copper|dunes|eagle|fern|granite|hazel|iron|juniper|lark|maple|north|otter"
    "|pine|quarry|raven|San |São |Groß|żółty|Øster",
    "bridge|brook|cliff|dale|field|ford|gate|grove|haven|hill|lake|marsh|mouth|point|port|ridge"
    "|stead|wick|wold|yard|münde|ängen|señal",
)


@dataclass(frozen=True)
class Feature:
    """The tokens of one categorical feature and how each of them fares on each day.

    Attributes:
        name: the feature's name.
        tokens: every token there is, listed on some day or not.
        latent: what a token means to the label, ``[tokens, LATENT_SIZE]``; no model sees it.
        popularity: per day, each token's probability.
        listed: per day, whether the day's vocabulary has the token.
    """

    name: str
    tokens: np.ndarray
    latent: np.ndarray
    popularity: dict[str, np.ndarray]
    listed: dict[str, np.ndarray]


@dataclass(frozen=True)
class People:
    """Rows of the census, as columns of the same length."""

    occupation: np.ndarray
    city: np.ndarray
    age: np.ndarray
    hours_per_week: np.ndarray
    income_class: np.ndarray

    def rows(self, start: int, stop: int | None = None) -> People:
        """Returns the people from ``start`` to ``stop``."""
        return People(**{name: column[start:stop] for name, column in vars(self).items()})

    def inputs(self) -> dict[str, np.ndarray]:
        """Returns what the model may see: all columns but the label."""
        return {name: column for name, column in vars(self).items() if name != "income_class"}


class World:
    """The rules that stay the same on both days: who there is, and what decides the label."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draws the tokens, their fates and the teacher's weights."""
        self.occupation = make_feature("occupation", occupation_tokens(), rng)
        self.city = make_feature("city", city_tokens(), rng)
        self._teacher = make_teacher(rng)

    def people(self, day: str, count: int, rng: np.random.Generator) -> People:
        """Draws ``count`` people of one day."""
        who = [rng.choice(len(f.tokens), count, p=f.popularity[day]) for f in self.features]
        # Three decimals keep the files small, and reading them back gives the same float32.
        numeric = rng.normal(size=(count, 2)).clip(-3, 3).round(3)
        latent = [f.latent[ids] for f, ids in zip(self.features, who, strict=True)]
        scores = self._teacher(np.concatenate([*latent, numeric], axis=1))
        label = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)  # samples the softmax
        occupation, city = (f.tokens[ids] for f, ids in zip(self.features, who, strict=True))
        age, hours_per_week = numeric.astype(np.float32).T
        return People(occupation, city, age, hours_per_week, income_class=label)

    @property
    def features(self) -> tuple[Feature, Feature]:
        """The categorical features, in the order of the columns of `People`."""
        return self.occupation, self.city


def occupation_tokens() -> list[str]:
    """Returns compound words, a few with a space or a letter outside ASCII."""
    pairs = itertools.product(*(words.split("|") for words in OCCUPATION_WORDS))
    return [f"{a} {b}" if " " in a else f"{a}_{b}" for a, b in pairs]


def city_tokens() -> list[str]:
    """Returns made-up places, likewise."""
    return [a + b for a, b in itertools.product(*(words.split("|") for words in CITY_WORDS))]


def make_feature(name: str, tokens: Sequence[str], rng: np.random.Generator) -> Feature:
    """Draws which tokens exist, and which of them a day drops, adds or never lists."""
    shares = {"dropped": DROPPED, "added": ADDED, "unlisted": UNLISTED, "kept": 1 - DROPPED}
    counts = [round(share * VOCABULARY_SIZES[name]) for share in shares.values()]
    fate = np.repeat(list(shares), counts)
    rng.shuffle(fate)
    size = len(fate)
    zipf = 1 / (np.arange(size) + 3.0) ** 0.9
    rare = np.where(fate == "unlisted", zipf.min(), zipf)
    drift = rng.lognormal(sigma=0.7, size=size)
    weight = {
        "day1": np.where(fate == "added", 0, rare),
        "day2": np.where(fate == "dropped", FADED, 1) * rare * drift,
    }
    return Feature(
        name=name,
        tokens=rng.permutation(np.array(tokens))[:size],
        latent=rng.normal(size=(size, LATENT_SIZE)),
        popularity={day: w / w.sum() for day, w in weight.items()},
        listed={
            "day1": np.isin(fate, ["kept", "dropped"]),
            "day2": np.isin(fate, ["kept", "added"]),
        },
    )


def make_teacher(rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """Draws the two-layer network that decides the label.

    Its inputs meet in one hidden layer, so what an occupation means depends on the city and the
    numbers: no table of token averages can predict the label well.
    """
    inner = rng.normal(size=(2 * LATENT_SIZE + 2, TEACHER_UNITS)) / np.sqrt(2 * LATENT_SIZE + 2)
    outer = rng.normal(size=(TEACHER_UNITS, N_CLASSES)) / np.sqrt(TEACHER_UNITS)
    return lambda x: SHARPNESS * np.tanh(1.5 * x @ inner) @ outer


def write_vocabulary(feature: Feature, day: str, log: People) -> None:
    """Writes one day's listed tokens, the most frequent first: one per line, as UTF-8."""
    tokens, counts = np.unique(getattr(log, feature.name), return_counts=True)
    seen = dict(zip(tokens, counts, strict=True))
    listed = sorted(feature.tokens[feature.listed[day]], key=lambda t: (-seen.get(t, 0), t))
    text = "".join(f"{token}\n" for token in listed)
    vocabulary_path(day, feature.name).write_bytes(text.encode("utf-8"))


def vocabulary_path(day: str, name: str) -> Path:
    """Returns where a day's vocabulary of a feature lies."""
    return FOLDER / f"{day}_{name}.txt"


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Writes columns as UTF-8 text; floats in the fewest digits that read back as they were."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(str(value) for value in row)


def make_estimator(model_dir: str) -> tf.estimator.Estimator:
    """Builds day one's classifier, with nothing but what TensorFlow cans."""
    columns = [tf.feature_column.numeric_column(name) for name in ("age", "hours_per_week")]
    for name in ("occupation", "city"):
        ids = tf.feature_column.categorical_column_with_vocabulary_file(
            name, str(vocabulary_path("day1", name)), num_oov_buckets=NUM_OOV_BUCKETS
        )
        columns.append(tf.feature_column.embedding_column(ids, EMBEDDING_SIZE))
    one_thread = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
    )  # so that a second run adds its floats in the same order
    return tf.estimator.DNNClassifier(
        hidden_units=HIDDEN_UNITS,
        feature_columns=columns,
        model_dir=model_dir,
        n_classes=N_CLASSES,
        optimizer="Adam",
        batch_norm=True,
        config=tf.estimator.RunConfig(
            tf_random_seed=SEED, session_config=one_thread, save_summary_steps=10**9
        ),
    )


def input_fn(people: People, *, training: bool = False) -> Callable[[], tf.data.Dataset]:
    """Returns what an estimator wants to be fed with; shuffled without end when training."""

    def dataset() -> tf.data.Dataset:
        rows = tf.data.Dataset.from_tensor_slices((people.inputs(), people.income_class))
        if not training:
            return rows.batch(len(people.age))
        return rows.shuffle(len(people.age), seed=SEED).repeat().batch(BATCH_SIZE)

    return dataset


def save_checkpoint(estimator: tf.estimator.Estimator, folder: Path) -> None:
    """Keeps the two files that hold the variables, and a state file that names them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    latest = Path(estimator.latest_checkpoint())
    for path in latest.parent.glob(latest.name + ".*"):
        if path.suffix != ".meta":  # the graph: TensorFlow's own, and larger than the variables
            shutil.copyfile(path, folder / path.name)
    state = f'model_checkpoint_path: "{latest.name}"\nall_model_checkpoint_paths: "{latest.name}"\n'
    (folder / "checkpoint").write_text(state, encoding="utf-8")


def draw_recorded_people(world: World, rng: np.random.Generator) -> People:
    """Draws people of day two, some of them given a token that day two no longer lists."""
    people = world.people("day2", RECORDED_ROWS, rng)
    for i, feature in enumerate(world.features):
        unlisted = feature.tokens[~feature.listed["day2"]]
        rows = slice(i * RECORDED_STRANGERS, (i + 1) * RECORDED_STRANGERS)
        getattr(people, feature.name)[rows] = rng.choice(unlisted, RECORDED_STRANGERS)
    return people


def record_logits(estimator: tf.estimator.Estimator, people: People) -> None:
    """Writes what day one's classifier says of these people."""
    (batch,) = estimator.predict(input_fn(people), yield_single_examples=False)
    logits = {f"logit_{i}": column for i, column in enumerate(batch["logits"].T)}
    write_csv(FOLDER / "recorded_logits.csv", people.inputs() | logits)


def train_day1(log: People, held_out: People, recorded: People) -> None:
    """Trains day one's classifier, keeps its checkpoint and its logits, and says how good it is."""
    with tempfile.TemporaryDirectory() as model_dir:
        estimator = make_estimator(model_dir)
        estimator.train(input_fn(log, training=True), steps=TRAIN_STEPS)
        scores = estimator.evaluate(input_fn(held_out), steps=1)
        save_checkpoint(estimator, FOLDER / "day1_model")
        record_logits(estimator, recorded)
    classes = np.bincount(held_out.income_class) / len(held_out.income_class)
    print(f"day one: held-out loss {scores['loss']:.4f}, accuracy {scores['accuracy']:.4f}")
    print(f"guessing: loss {-(classes * np.log(classes)).sum():.4f}, accuracy {classes.max():.4f}")


def main() -> None:
    """Makes the fixture."""
    # Each part has its own stream, so that resizing one leaves the others as they were.
    streams = np.random.default_rng(SEED).spawn(6)
    world = World(streams[0])
    logs = {
        day: world.people(day, LOG_ROWS, rng) for day, rng in zip(DAYS, streams[1:3], strict=True)
    }
    for day, feature in itertools.product(DAYS, world.features):
        write_vocabulary(feature, day, logs[day])
    write_csv(FOLDER / "day2_train.csv", vars(logs["day2"].rows(0, DAY2_TRAIN_ROWS)))
    write_csv(FOLDER / "day2_eval.csv", vars(world.people("day2", DAY2_EVAL_ROWS, streams[3])))
    held_out = world.people("day1", DAY1_EVAL_ROWS, streams[4])
    train_day1(logs["day1"], held_out, draw_recorded_people(world, streams[5]))


if __name__ == "__main__":
    main()
