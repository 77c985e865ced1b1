"""Coverage-guided fuzzing of single parsers with atheris, where it can be installed.

    cd tests && python -m fuzz.fuzz_atheris table -max_total_time=60

What follows the target's name goes to libFuzzer. Checksums are switched off: a fuzzer that has to
guess them learns nothing.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["torch_warmstart"]):
    from torch_warmstart.errors import WarmStartError
    from torch_warmstart.formats import registry
    from torch_warmstart.formats.tensorflow import (
        records,
        state_file,
        table,
        wire,
    )
    from torch_warmstart.formats.tensorflow.objects import object_graph

from fuzz import seeds
from fuzz.reading import read_everything

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz_"))


def _without_checksums() -> None:
    """Every stored checksum is taken for right."""

    class Any32(int):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = int.__hash__

    def anything(_: object, __: int = 0) -> int:
        return Any32(0)

    table.masked_crc = anything
    records.mask_crc = anything


def _open(format: str, target: str, data: bytes, others: dict[str, bytes]) -> None:
    for name, contents in {target: data, **others}.items():
        (_FOLDER / name).write_bytes(contents)
    url = str(_FOLDER / target).removesuffix(".index")
    with suppress(WarmStartError), registry.open_checkpoint(url, format=format) as checkpoint:
        read_everything(checkpoint)


def _index(data: bytes) -> None:
    _open("tf-v2", "m.index", data, {"m.data-00000-of-00001": bytes(256)})


def _v1(data: bytes) -> None:
    _open("tf-v1", "v1.ckpt", data, {})


def _safetensors(data: bytes) -> None:
    _open("safetensors", "m.safetensors", data, {})


def _state(data: bytes) -> None:
    with suppress(WarmStartError):
        state_file.parse_state(data, "checkpoint")


def _wire(function: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def check(data: bytes) -> None:
        with suppress(wire.MalformedError):
            function(data)

    return check


TARGETS: dict[str, Callable[[bytes], None]] = {
    "index": _index,
    "v1": _v1,
    "safetensors": _safetensors,
    "state": _state,
    "table": _wire(lambda data: table._decode_entries(data, len(data))),
    "snappy": _wire(table.unsnap),
    "entry": _wire(records.decode_entry),
    "header": _wire(records.decode_header),
    "graph": _wire(lambda data: object_graph.ObjectGraph(data).full_names),
}
_SEEDS = {"index": "tf-v2", "v1": "tf-v1", "safetensors": "safetensors", "state": "tf-state"}


def _write_seeds(target: str) -> Path:
    """A folder with the files of the seeds, to begin with."""
    folder = _FOLDER / "seeds"
    folder.mkdir()
    for case in seeds.make_seeds(_SEEDS[target]) if target in _SEEDS else ():
        for number, (path, data) in enumerate(case.files.items()):
            if target != "index" or path.endswith(".index"):
                (folder / f"{case.seed}-{number}").write_bytes(data)
    return folder


def main() -> None:
    """Runs libFuzzer on one target until it is told to stop or something is found."""
    target = sys.argv[1] if len(sys.argv) > 1 else ""
    if target not in TARGETS:
        sys.exit(f"usage: python -m fuzz.fuzz_atheris TARGET ..., of {', '.join(TARGETS)}")
    _without_checksums()
    arguments = [sys.argv[0], *sys.argv[2:]]
    if not any(Path(argument).is_file() for argument in arguments[1:]):  # one to run again
        arguments.append(str(_write_seeds(target)))
    atheris.Setup(arguments, TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
