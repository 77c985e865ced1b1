"""Writes `fixtures/`: what TensorFlow's estimators saved, and what warm-started ones then held.

Run ``python tests/parity/make_estimator_fixtures.py`` with tensorflow-cpu 2.15, the last release
that has estimators. Every folder is one case:

    old/           the checkpoint that was trained (or a SavedModel of it)
    expected.npz   every variable of the estimator that TensorFlow warm-started from it, by name;
                   keys that begin with "@" are no variables but what it computed

As in TensorFlow's own tests of these, a first estimator is trained for a step by SGD, and a second
one, warm-started from it, for a step at learning rate 0. The layers are narrower here. Only what a
warm start reads is kept: no graphs, no events.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # before the import: it logs a page otherwise
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
tf1.logging.set_verbosity(tf1.logging.FATAL)
HERE = Path(__file__).parent / "fixtures"
HIDDEN = [8, 6]
CLASSES = 4
CITIES = ["Palo Alto", "Mountain View"]
OLD_OCCUPATIONS = ["doctor", "lawyer", "consultant"]
NEW_OCCUPATIONS = ["doctor", "consultant", "engineer"]
NEW_ROW = 0.39

Values = dict[str, np.ndarray]


# -- keeping what matters --------------------------------------------------------------------------


def keep_checkpoint(model_dir: str, to: Path) -> str:
    """Copies the latest checkpoint of a directory, its state file with it."""
    prefix = Path(tf.train.latest_checkpoint(model_dir))
    to.mkdir(parents=True)
    for file in prefix.parent.glob(f"{prefix.name}.*"):
        if ".meta" not in file.name:
            shutil.copy(file, to)
    (to / "checkpoint").write_text(f'model_checkpoint_path: "{prefix.name}"\n')
    return str(to)


def values_of(estimator: Any) -> Values:
    return {name: estimator.get_variable_value(name) for name in estimator.get_variable_names()}


def write_expected(folder: Path, values: Values) -> None:
    np.savez(folder / "expected.npz", **values)


def run_config(**more: Any) -> Any:
    return tf.estimator.RunConfig(tf_random_seed=1, save_summary_steps=None, **more)


# -- an estimator of one variable ------------------------------------------------------------------


def one_variable(initial: float) -> Callable[..., Any]:
    """A model function: one variable, `x`, which no step changes; all outputs are x + 1."""

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        del features, labels
        x = tf1.get_variable("x", initializer=initial)
        y = tf1.identity(x + 1)
        return tf.estimator.EstimatorSpec(
            mode,
            loss=tf.constant(0.0),
            train_op=tf1.assign_add(tf1.train.get_global_step(), 1),
            predictions={"y": tf.reshape(y, [1])},
            eval_metric_ops={"y": tf1.metrics.mean(y)},
            export_outputs={
                "test": tf.estimator.export.PredictOutput({"y": y}),
            },
        )

    return model_fn


def ones() -> Any:
    return tf.data.Dataset.from_tensors(({"a": tf.ones([1])}, tf.ones([1]))).repeat()


def serving() -> Any:
    placeholder = tf1.placeholder(tf.float32, [None])
    return tf.estimator.export.ServingInputReceiver({"a": placeholder}, {"a": placeholder})


def new_one_variable(warm_start_from: Any = None, initial: float = 36.0) -> Any:
    return tf.estimator.Estimator(
        one_variable(initial), tempfile.mkdtemp(), run_config(), warm_start_from=warm_start_from
    )


def keep_saved_model(exported: bytes | str, to: Path) -> str:
    shutil.copytree(os.fsdecode(exported), to)
    for file in [*to.glob("assets*"), *to.glob("fingerprint.pb")]:
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    return str(to)


def one_variable_cases() -> None:
    trained = new_one_variable(initial=42.0)
    trained.train(ones, steps=10)
    folder = HERE / "one_variable"
    old = keep_checkpoint(trained.model_dir, folder / "old")
    exported = trained.export_saved_model(tempfile.mkdtemp(), serving)
    saved_model = keep_saved_model(exported, folder / "old_saved_model")
    computed: Values = {}
    for name, source in (("dir", old), ("saved_model", saved_model)):
        untrained = new_one_variable(source)
        computed[f"@evaluated_from_{name}"] = untrained.evaluate(ones, steps=1)["y"]
        [predicted] = [next(new_one_variable(source).predict(ones))["y"]]
        computed[f"@predicted_from_{name}"] = predicted
    from_saved_model = new_one_variable(saved_model)
    from_saved_model.train(ones, steps=5)
    computed["@x_from_saved_model"] = from_saved_model.get_variable_value("x")
    keep_saved_model(
        new_one_variable(old).export_saved_model(tempfile.mkdtemp(), serving),
        folder / "exported_untrained",
    )
    warm = new_one_variable(old)
    warm.train(ones, steps=5)
    write_expected(folder, values_of(warm) | computed)


def matrix_case() -> None:
    """Predictions of x + 1 by an estimator that was never trained, x being [[3]]."""

    def model_fn(features: Any, labels: Any, mode: str) -> Any:
        del features, labels
        x = tf1.get_variable("x", initializer=[[initial]])
        return tf.estimator.EstimatorSpec(
            mode,
            loss=tf.constant(0.0),
            train_op=tf1.assign_add(tf1.train.get_global_step(), 1),
            predictions={"y": x + 1},
            export_outputs={"test": tf.estimator.export.PredictOutput({"y": x + 1})},
        )

    initial = 3.0
    trained = tf.estimator.Estimator(model_fn, tempfile.mkdtemp(), run_config())
    trained.train(ones, steps=1)
    folder = HERE / "matrix"
    old = keep_checkpoint(trained.model_dir, folder / "old")
    exported = trained.export_saved_model(tempfile.mkdtemp(), serving)
    saved_model = keep_saved_model(exported, folder / "old_saved_model")
    initial = 0.0
    computed = {}
    for name, source in (("dir", old), ("saved_model", saved_model)):
        untrained = tf.estimator.Estimator(
            model_fn, tempfile.mkdtemp(), run_config(), warm_start_from=source
        )
        computed[f"@predicted_from_{name}"] = next(untrained.predict(ones))["y"]
    write_expected(folder, computed)


def tpu_case() -> None:
    """The estimator for TPUs, which runs on a CPU too, as in TensorFlow's test."""

    def model_fn(features: Any, labels: Any, mode: str, params: Any) -> Any:
        del features, labels, params
        tf1.get_variable("x", initializer=initial)
        return tf1.estimator.tpu.TPUEstimatorSpec(
            mode,
            loss=tf.constant(0.0),
            train_op=tf1.assign_add(tf1.train.get_global_step(), 1),
        )

    def make(warm_start_from: Any = None) -> Any:
        return tf1.estimator.tpu.TPUEstimator(
            model_fn,
            tempfile.mkdtemp(),
            tf1.estimator.tpu.RunConfig(save_summary_steps=None),
            use_tpu=False,
            train_batch_size=1,
            warm_start_from=warm_start_from,
        )

    def inputs(params: Any) -> Any:
        del params
        return ones()

    initial = 42.0
    trained = make()
    trained.train(inputs, steps=10)
    old = keep_checkpoint(trained.model_dir, HERE / "tpu" / "old")
    initial = 36.0
    warm = make(old)
    warm.train(inputs, steps=5)
    write_expected(HERE / "tpu", values_of(warm))


# -- a Keras model that becomes an estimator -------------------------------------------------------


def keras_case() -> None:
    """Keras saves its weights by name; the estimator made of the model starts from that file."""
    tf.keras.utils.set_random_seed(1)
    inputs = np.random.default_rng(1).normal(size=(32, 3)).astype(np.float32)
    targets = inputs.sum(axis=1, keepdims=True).astype(np.float32)

    def input_fn() -> Any:
        return tf.data.Dataset.from_tensors(({"numbers": inputs}, targets)).repeat()

    def make() -> Any:
        layers = tf.keras.layers
        numbers = layers.Input([3], name="numbers")
        hidden = layers.Dense(4, activation="relu", name="hidden")(numbers)
        return tf.keras.Model(numbers, layers.Dense(1, name="out")(hidden))

    model = make()
    model.compile(loss="mse", optimizer=tf.keras.optimizers.legacy.SGD(0.01))
    model.fit(inputs, targets, epochs=2, verbose=0)
    model_dir = tempfile.mkdtemp()
    estimator = tf.keras.estimator.model_to_estimator(
        model, model_dir=model_dir, checkpoint_format="saver", config=run_config()
    )
    started_from = estimator._warm_start_settings.ckpt_to_initialize_from
    folder = HERE / "keras"
    keep_checkpoint(str(Path(started_from).parent), folder / "old" / "keras")
    before = estimator.evaluate(input_fn, steps=1)["loss"]
    predicted = np.array([p["out"] for p in estimator.predict(input_fn_once(inputs))])
    estimator.train(input_fn, steps=20)
    after = estimator.evaluate(input_fn, steps=1)["loss"]
    weights = {
        variable.name.removesuffix(":0"): variable.numpy() for variable in model.trainable_variables
    }
    computed = {
        "@inputs": inputs,
        "@targets": targets,
        "@predicted": predicted,
        "@loss_before": before,
        "@loss_after": after,
        "@started_from": np.array(str(Path(started_from).relative_to(model_dir))),
    }
    write_expected(folder, weights | computed)


def input_fn_once(inputs: np.ndarray) -> Callable[[], Any]:
    return lambda: tf.data.Dataset.from_tensors({"numbers": inputs})


# -- canned estimators -----------------------------------------------------------------------------


class Flavor:
    """The first or the second version of the canned estimators, and an SGD for it."""

    def __init__(self, version: int) -> None:
        self.name = f"v{version}"
        self.canned = tf1.estimator if version == 1 else tf.estimator
        self.sgd = (
            tf1.train.GradientDescentOptimizer
            if version == 1
            else (lambda rate: tf.keras.optimizers.legacy.SGD(learning_rate=rate))
        )


def inputs_of(features: dict[str, list[Any]], labels: list[Any]) -> Callable[[], Any]:
    return lambda: tf.data.Dataset.from_tensors((features, labels)).repeat(1)


def city(name: str = "city") -> Any:
    column = tf.feature_column.categorical_column_with_vocabulary_list(name, CITIES)
    return tf.feature_column.embedding_column(column, dimension=5)


def occupation_column(folder: Path, entries: list[str]) -> Any:
    path = folder / f"{'old' if entries is OLD_OCCUPATIONS else 'new'}_occupations.txt"
    path.write_text("\n".join(entries))
    return tf.feature_column.categorical_column_with_vocabulary_file(
        "occupation", str(path), vocabulary_size=len(entries)
    )


def occupation_info(folder: Path) -> Any:
    return tf.estimator.VocabInfo(
        new_vocab=str(folder / "new_occupations.txt"),
        new_vocab_size=len(NEW_OCCUPATIONS),
        num_oov_buckets=0,
        old_vocab=str(folder / "old_occupations.txt"),
        old_vocab_size=len(OLD_OCCUPATIONS),
        backup_initializer=tf1.random_uniform_initializer(minval=NEW_ROW, maxval=NEW_ROW),
    )


CITY = {"city": [["Palo Alto"], ["Mountain View"]]}
LOCALITY = {"locality": CITY["city"]}
OCCUPATION = {"occupation": [["doctor"], ["consultant"]]}
AGE = {"age": [[23.0], [31.0]]}
AGE_IN_YEARS = {"age_in_years": AGE["age"]}
CLASS_LABELS = [[1], [3]]
NUMBERS = [[1.5], [-0.5]]
age = tf.feature_column.numeric_column


def canned_case(
    folder: Path,
    make_old: Callable[..., Any],
    make_new: Callable[..., Any],
    old_inputs: Callable[[], Any],
    new_inputs: Callable[[], Any],
    settings: Callable[[str], Any] = lambda old: old,
    **computed: Callable[[Any], np.ndarray],
) -> None:
    """Trains, warm-starts, keeps the checkpoint and what the second estimator holds."""
    folder.mkdir(parents=True, exist_ok=True)
    trained = make_old()
    trained.train(old_inputs, steps=1)
    old = keep_checkpoint(trained.model_dir, folder / "old")
    warm = make_new(warm_start_from=settings(old))
    warm.train(new_inputs, steps=1)
    more = {f"@{name}": compute(warm) for name, compute in computed.items()}
    write_expected(folder, values_of(warm) | more)


def logits_for(features: dict[str, list[Any]]) -> Callable[[Any], np.ndarray]:
    """What an estimator computes for some rows: the scores before any softmax."""

    def predict(estimator: Any) -> np.ndarray:
        rows = list(estimator.predict(lambda: tf.data.Dataset.from_tensors(features)))
        key = "logits" if "logits" in rows[0] else "predictions"
        return np.array([row[key] for row in rows])

    return predict


def settings_with(**fields: Any) -> Callable[[str], Any]:
    return lambda old: tf.estimator.WarmStartSettings(ckpt_to_initialize_from=old, **fields)


def dnn_cases(flavor: Flavor) -> None:
    def make(kind: str, columns: list[Any], rate: float, **more: Any) -> Callable[..., Any]:
        def made(**warm: Any) -> Any:
            return getattr(flavor.canned, kind)(
                feature_columns=columns,
                hidden_units=HIDDEN,
                optimizer=flavor.sgd(rate),
                model_dir=tempfile.mkdtemp(),
                config=run_config(),
                **more,
                **warm,
            )

        return made

    def classifier(columns: list[Any], rate: float, **more: Any) -> Callable[..., Any]:
        return make("DNNClassifier", columns, rate, n_classes=CLASSES, **more)

    at = HERE / flavor.name
    inputs = inputs_of(CITY, CLASS_LABELS)
    canned_case(
        at / "dnn_classifier",
        classifier([city()], 1.0),
        classifier([city()], 0.0),
        inputs,
        inputs,
        logits=logits_for(CITY),
    )
    numbers = inputs_of(CITY, NUMBERS)
    canned_case(
        at / "dnn_regressor",
        make("DNNRegressor", [city()], 1.0),
        make("DNNRegressor", [city()], 0.0),
        numbers,
        numbers,
        logits=logits_for(CITY),
    )
    canned_case(
        at / "dnn_selective",
        classifier([city()], 1.0),
        classifier([city()], 0.0),
        inputs,
        inputs,
        settings_with(vars_to_warm_start=".*(city).*"),
    )
    folder = at / "dnn_vocab"
    folder.mkdir(parents=True)
    embed = tf.feature_column.embedding_column
    occupations = inputs_of(OCCUPATION, CLASS_LABELS)
    parts: dict[str, Any] = {}
    if flavor.canned is tf1.estimator:
        parts["input_layer_partitioner"] = tf1.fixed_size_partitioner(num_shards=2)
    canned_case(
        folder,
        classifier([embed(occupation_column(folder, OLD_OCCUPATIONS), 2)], 1.0, **parts),
        classifier([embed(occupation_column(folder, NEW_OCCUPATIONS), 2)], 0.0, **parts),
        occupations,
        occupations,
        lambda old: tf.estimator.WarmStartSettings(
            old, None, {embedding_name(old, "occupation"): occupation_info(folder)}
        ),
    )
    canned_case(
        at / "dnn_renamed",
        classifier([city("locality")], 1.0),
        classifier([city()], 0.0),
        inputs_of(LOCALITY, CLASS_LABELS),
        inputs,
        lambda old: tf.estimator.WarmStartSettings(
            old,
            var_name_to_prev_var_name={
                embedding_name(old, "locality").replace("locality", "city"): embedding_name(
                    old, "locality"
                )
            },
        ),
    )


def embedding_name(checkpoint: str, feature: str) -> str:
    """What the feature's variable is called; the two versions of the estimators differ in it."""
    [name] = [name for name, _ in tf.train.list_variables(checkpoint) if feature in name]
    return name


def linear_cases(flavor: Flavor) -> None:
    def make(kind: str, columns: list[Any], rate: float, **more: Any) -> Callable[..., Any]:
        def made(**warm: Any) -> Any:
            return getattr(flavor.canned, kind)(
                feature_columns=columns,
                optimizer=flavor.sgd(rate),
                model_dir=tempfile.mkdtemp(),
                config=run_config(),
                **more,
                **warm,
            )

        return made

    def classifier(columns: list[Any], rate: float, **more: Any) -> Callable[..., Any]:
        return make("LinearClassifier", columns, rate, n_classes=CLASSES, **more)

    at = HERE / flavor.name
    inputs, numbers = inputs_of(AGE, CLASS_LABELS), inputs_of(AGE, NUMBERS)
    canned_case(
        at / "linear_classifier",
        classifier([age("age")], 1.0),
        classifier([age("age")], 0.0),
        inputs,
        inputs,
        logits=logits_for(AGE),
    )
    canned_case(
        at / "linear_regressor",
        make("LinearRegressor", [age("age")], 1.0),
        make("LinearRegressor", [age("age")], 0.0),
        numbers,
        numbers,
        logits=logits_for(AGE),
    )
    canned_case(
        at / "linear_selective",
        classifier([age("age")], 1.0),
        classifier([age("age")], 0.0),
        inputs,
        inputs,
        settings_with(vars_to_warm_start=".*(age).*"),
    )
    folder = at / "linear_vocab"
    folder.mkdir(parents=True)
    occupations = inputs_of(OCCUPATION, CLASS_LABELS)
    parts: dict[str, Any] = {}
    if flavor.canned is tf1.estimator:
        parts["partitioner"] = tf1.fixed_size_partitioner(num_shards=2)
    canned_case(
        folder,
        classifier([occupation_column(folder, OLD_OCCUPATIONS)], 1.0, **parts),
        classifier([occupation_column(folder, NEW_OCCUPATIONS)], 0.0, **parts),
        occupations,
        occupations,
        lambda old: tf.estimator.WarmStartSettings(
            old, None, {embedding_name(old, "occupation"): occupation_info(folder)}
        ),
    )
    canned_case(
        at / "linear_renamed",
        classifier([age("age_in_years")], 1.0),
        classifier([age("age")], 0.0),
        inputs_of(AGE_IN_YEARS, CLASS_LABELS),
        inputs,
        lambda old: tf.estimator.WarmStartSettings(
            old,
            var_name_to_prev_var_name={
                embedding_name(old, "age_in_years").replace("age_in_years", "age"): embedding_name(
                    old, "age_in_years"
                )
            },
        ),
    )


def combined_cases(flavor: Flavor) -> None:
    def make(kind: str, rate: float, **more: Any) -> Callable[..., Any]:
        def made(**warm: Any) -> Any:
            return getattr(flavor.canned, kind)(
                linear_feature_columns=[age("age")],
                linear_optimizer=flavor.sgd(rate),
                dnn_feature_columns=[city()],
                dnn_hidden_units=HIDDEN,
                dnn_optimizer=flavor.sgd(rate),
                model_dir=tempfile.mkdtemp(),
                config=run_config(),
                **more,
                **warm,
            )

        return made

    at = HERE / flavor.name
    inputs, numbers = inputs_of(AGE | CITY, CLASS_LABELS), inputs_of(AGE | CITY, NUMBERS)
    classifier, regressor = "DNNLinearCombinedClassifier", "DNNLinearCombinedRegressor"
    canned_case(
        at / "combined_classifier",
        make(classifier, 1.0, n_classes=CLASSES),
        make(classifier, 0.0, n_classes=CLASSES),
        inputs,
        inputs,
        logits=logits_for(AGE | CITY),
    )
    canned_case(
        at / "combined_regressor",
        make(regressor, 1.0),
        make(regressor, 0.0),
        numbers,
        numbers,
        logits=logits_for(AGE | CITY),
    )
    canned_case(
        at / "combined_selective",
        make(classifier, 1.0, n_classes=CLASSES),
        make(classifier, 0.0, n_classes=CLASSES),
        inputs,
        inputs,
        settings_with(vars_to_warm_start=".*(dnn).*"),
    )


# -- canned estimators under a distribution strategy -----------------------------------------------


def strategy_cases() -> None:
    """Trained under a strategy, warm-started with and without one."""
    column = tf.feature_column.numeric_column("x", shape=[2])
    features = {"x": [[0.5, -1.0], [2.0, 0.25]]}

    def inputs() -> Any:
        return tf.data.Dataset.from_tensors((features, NUMBERS)).repeat(4)

    def config(distributed: bool) -> Any:
        strategy = tf.distribute.MirroredStrategy(["/cpu:0"]) if distributed else None
        return run_config(train_distribute=strategy, eval_distribute=strategy)

    for kind in ("LinearRegressor", "DNNRegressor", "DNNLinearCombinedRegressor"):

        def make(distributed: bool, kind: str = kind, **warm: Any) -> Any:
            sgd = tf.keras.optimizers.legacy.SGD
            columns: dict[str, Any] = {
                "LinearRegressor": {"feature_columns": [column], "optimizer": sgd(0.05)},
                "DNNRegressor": {
                    "feature_columns": [column],
                    "hidden_units": HIDDEN,
                    "optimizer": sgd(0.05),
                },
                "DNNLinearCombinedRegressor": {
                    "linear_feature_columns": [column],
                    "dnn_feature_columns": [column],
                    "dnn_hidden_units": HIDDEN,
                    "linear_optimizer": sgd(0.05),
                    "dnn_optimizer": sgd(0.05),
                },
            }[kind]
            return getattr(tf.estimator, kind)(
                model_dir=tempfile.mkdtemp(), config=config(distributed), **columns, **warm
            )

        folder = HERE / "strategy" / kind
        trained = make(True)
        trained.train(inputs, steps=2)
        old = keep_checkpoint(trained.model_dir, folder / "old")
        computed: Values = {
            "@inputs": np.array(features["x"], np.float32),
            "@targets": np.array(NUMBERS, np.float32),
        }
        for name, distributed in (("with", True), ("without", False)):
            warm = make(distributed, warm_start_from=old)
            computed[f"@loss_{name}_strategy"] = warm.evaluate(inputs, steps=1)["average_loss"]
            computed[f"@predicted_{name}_strategy"] = logits_for(features)(warm)
        write_expected(folder, values_of(trained) | computed)


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    one_variable_cases()
    matrix_case()
    tpu_case()
    for version in (1, 2):
        flavor = Flavor(version)
        dnn_cases(flavor)
        linear_cases(flavor)
        combined_cases(flavor)
    strategy_cases()
    keras_case()


if __name__ == "__main__":
    main()
