"""Writes `wide_and_deep/`: a canned wide-and-deep classifier, and what it computes.

Run ``python tests/ports_keras/make_wide_and_deep.py`` with tensorflow-cpu 2.15, the last release
that has estimators. The classifier is a real `tf.estimator.DNNLinearCombinedClassifier` with every
common kind of feature column. `recorded.npz` has

    inputs/NAME    the features of some people, as the input function gave them
    ids/NAME       the rows that hashed and crossed columns chose for them: torch has no FarmHash
    outputs        the logits

Only what a warm start reads is kept of the model directory: no graphs, no events.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before the import: it logs a page otherwise
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
tf1.logging.set_verbosity(tf1.logging.FATAL)
columns = tf.feature_column
HERE = Path(__file__).parent / "wide_and_deep"

BOUNDARIES = [25.0, 35.0, 45.0, 55.0]
EDUCATIONS = ["school", "college", "bachelor", "master", "doctorate"]
OCCUPATION_BUCKETS, CROSS_BUCKETS = 40, 60
CLASSES = 3

Features = dict[str, np.ndarray]


def draw_people(count: int, seed: int) -> tuple[Features, np.ndarray]:
    """People, and a class that depends on all that is known of them."""
    rng = np.random.default_rng(seed)
    people = {
        "age": rng.uniform(18, 70, (count, 1)).astype(np.float32),
        "hours": rng.normal(0, 1, (count, 1)).astype(np.float32),
        "education": rng.choice([*EDUCATIONS, "unheard-of"], (count, 1)),
        "occupation": np.char.add("job ", rng.integers(0, 100, (count, 1)).astype(str)),
    }
    schooling = np.char.str_len(people["education"])
    score = people["age"] / 20 + people["hours"] + schooling / 4
    return people, np.digitize(score, np.quantile(score, [1 / 3, 2 / 3]))


def make_columns() -> tuple[list[Any], list[Any]]:
    """The wide and the deep ones."""
    age = columns.numeric_column("age", normalizer_fn=lambda x: (x - 40.0) / 15.0)
    age_bucket = columns.bucketized_column(columns.numeric_column("age"), BOUNDARIES)
    education = columns.categorical_column_with_vocabulary_list(
        "education", EDUCATIONS, num_oov_buckets=1
    )
    occupation = columns.categorical_column_with_hash_bucket("occupation", OCCUPATION_BUCKETS)
    crossed = columns.crossed_column([age_bucket, "education"], CROSS_BUCKETS)
    wide = [age_bucket, columns.indicator_column(education), occupation, crossed]
    deep = [
        age,
        columns.numeric_column("hours"),
        columns.embedding_column(education, 4),
        columns.embedding_column(occupation, 6),
        columns.embedding_column(crossed, 3),
        columns.indicator_column(age_bucket),
    ]
    return wide, deep


def make_classifier() -> Any:
    wide, deep = make_columns()
    return tf.estimator.DNNLinearCombinedClassifier(
        linear_feature_columns=wide,
        linear_optimizer=tf.keras.optimizers.legacy.Ftrl(0.1),
        dnn_feature_columns=deep,
        dnn_hidden_units=[12, 8],
        dnn_optimizer=tf.keras.optimizers.legacy.Adagrad(0.1),
        n_classes=CLASSES,
        batch_norm=True,
        model_dir=tempfile.mkdtemp(),
        config=tf.estimator.RunConfig(tf_random_seed=1, save_summary_steps=None),
    )


def chosen_rows(people: Features) -> Features:
    """The rows that hashed and crossed columns choose, as TensorFlow computes them."""
    wide, _ = make_columns()
    found = {}
    with tf1.Graph().as_default(), tf1.Session() as session:
        for column in wide[2:]:
            dense = columns.indicator_column(column)
            layer = tf1.feature_column.input_layer(
                {name: tf.constant(value) for name, value in people.items()}, [dense]
            )
            one_hot = session.run(layer)
            assert (one_hot.sum(axis=1) == 1).all()
            found[column.name] = one_hot.argmax(axis=1)
    return found


def keep_checkpoint(model_dir: str) -> None:
    prefix = Path(tf.train.latest_checkpoint(model_dir))
    folder = HERE / "model"
    folder.mkdir(parents=True)
    for file in prefix.parent.glob(f"{prefix.name}.*"):
        if ".meta" not in file.name:
            shutil.copy(file, folder)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    classifier = make_classifier()
    training = tf.data.Dataset.from_tensor_slices
    people, classes = draw_people(2000, seed=0)
    # The estimator's batch norm keeps 0.999 of its statistics a step: they need many.
    classifier.train(lambda: training((people, classes)).batch(64).repeat(), steps=2000)
    some, _ = draw_people(64, seed=1)
    predicted = classifier.predict(lambda: training(some).batch(64))
    logits = np.stack([row["logits"] for row in predicted])
    keep_checkpoint(classifier.model_dir)
    record = {f"inputs/{name}": value[:, 0] for name, value in some.items()}
    record |= {f"ids/{name}": rows for name, rows in chosen_rows(some).items()}
    np.savez_compressed(HERE / "recorded.npz", outputs=logits, **record)


if __name__ == "__main__":
    main()
