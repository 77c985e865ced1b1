"""Models of keras.applications in torch twins: every layer's output is Keras's, or it is refused.

One small model in two formats; all in every format with TORCH_WARMSTART_ZOO=whole (`make zoo`).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from zoo import cells
from zoo.applications import SIZES, application, watch
from zoo.tape import Twin, folders_of

import torch_warmstart as tws

TOLERANCE = 1e-4
IS_WHOLE = os.environ.get("TORCH_WARMSTART_ZOO") == "whole"
CASES = [(library, name) for library in ("keras", "tf_keras") for name in SIZES]
FORMATS = cells.FORMATS
if not IS_WHOLE:
    CASES, FORMATS = [("keras", "MobileNetV3Small")], ("keras", "weights.h5")
REFUSED = {
    # BatchNormalizations made with scale=False: by number alone, nobody can tell gamma from beta.
    ("keras", "InceptionV3", "weights.h5"),
    ("tf_keras", "InceptionV3", "weights.h5"),
}


@pytest.mark.tensorflow
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("library", "name"), CASES)
def test_every_layer_of_an_application_is_equal_or_refused(
    library: str, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    keras = pytest.importorskip(library)
    pytest.importorskip("h5py")
    tape = application(keras, name)
    expected = watch(tape)
    for suffix in FORMATS:
        path = cells.save(tape, library, suffix, tmp_path_factory.mktemp("application"))
        rules = None
        if (library, suffix) == ("tf_keras", "weights.h5"):  # it has no names of layers
            _check_refused(tape, path, None)
            rules = dict(folders_of(tape))
        if (library, name, suffix) in REFUSED:
            _check_refused(tape, path, rules)
            continue
        apart, layer = expected.furthest(tape, _started(tape, path, rules))
        print(f"{library} {name} {suffix}: {apart:.2g} apart at {layer}")
        assert apart <= TOLERANCE, f"{suffix}: {layer}"


def _started(tape: cells.Tape, path: str, rules: dict[str, str] | None) -> Twin:
    twin = Twin(tape).eval()
    cells._randomise(twin)
    tws.warm_start(twin, tws.WarmStartSettings(path, [".*"], None, rules))
    return twin


def _check_refused(tape: cells.Tape, path: str, rules: dict[str, str] | None) -> None:
    assert Path(path).exists()
    with pytest.raises(tws.PlanError, match="is not in the checkpoint|var_name_to_prev_var_name"):
        _started(tape, path, rules)
