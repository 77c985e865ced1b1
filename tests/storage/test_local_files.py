"""Local files that are changed, cut, or many, while a checkpoint in them is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import torch_warmstart as tw
from torch_warmstart.storage import Leases, LocalFile

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="leases are Linux's")
SIZE = 1 << 20  # bytes; more than what is read whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(bytes(SIZE))
    return path


def later(path: Path) -> None:
    """As if the clock had gone on: two writes may fall into one tick."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize("mapped_before", [True, False])
@pytest.mark.parametrize("size", [SIZE, 100])
def test_a_file_that_was_cut_is_told(file: Path, size: int, mapped_before: bool) -> None:
    os.truncate(file, size)
    source = LocalFile(str(file))
    if mapped_before:
        source.read(0, 1)
    os.truncate(file, 10)
    if mapped_before and size < SIZE:  # it was read whole
        assert source.read(0, size).tolist() == [0] * size
        return
    with pytest.raises(tw.CorruptCheckpointError, match="has been changed since it was opened"):
        source.read(0, size)


@pytest.mark.parametrize("mapped_before", [True, False])
def test_a_file_that_was_edited_in_place_is_told(file: Path, mapped_before: bool) -> None:
    source = LocalFile(str(file))
    if mapped_before:
        source.read(0, 1)
    with open(file, "r+b") as edited:
        edited.write(b"x")
    later(file)
    with pytest.raises(tw.CorruptCheckpointError, match=r"since it was opened\. Open"):
        source.read(0, SIZE)


@linux
def test_a_file_that_was_edited_and_got_its_time_back_is_told(file: Path) -> None:
    source = LocalFile(str(file))
    found = file.stat()
    while file.stat().st_ctime_ns == found.st_ctime_ns:
        file.write_bytes(b"x" * SIZE)
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(tw.CorruptCheckpointError, match=r"since it was opened\. Open"):
        source.read(0, SIZE)


def test_a_file_that_got_other_rights_is_what_it_was(file: Path) -> None:
    source = LocalFile(str(file))
    file.chmod(0o600)
    os.link(file, file.parent / "g")
    assert not source.read(0, SIZE).any()


def test_a_mapped_file_that_another_takes_the_place_of_is_what_it_was(file: Path) -> None:
    source = LocalFile(str(file))
    source.read(0, 1)
    (file.parent / "g").write_bytes(b"x" * SIZE)
    os.replace(file.parent / "g", file)
    assert not source.read(0, SIZE).any()


def test_another_file_in_its_place_is_told_if_it_was_not_mapped_yet(file: Path) -> None:
    source = LocalFile(str(file))
    (file.parent / "g").write_bytes(b"x" * SIZE)
    os.replace(file.parent / "g", file)
    with pytest.raises(tw.CorruptCheckpointError, match="has been changed since it was opened"):
        source.read(0, SIZE)


# ---- Leases ----------------------------------------------------------------------------------


@linux
def test_nobody_cuts_a_leased_file(file: Path) -> None:
    leases = Leases([str(file)])
    with pytest.raises(BlockingIOError):
        os.open(file, os.O_WRONLY | os.O_NONBLOCK)
    leases.close()
    os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))


@linux
def test_a_file_that_somebody_writes_to_is_left_alone(file: Path) -> None:
    with open(file, "r+b") as open_file:
        leases = Leases([str(file), str(file.parent / "none")])
        open_file.write(b"x")
        leases.close()


@linux
@pytest.mark.parametrize("ending", ["well", "in an error"])
def test_files_are_free_again_when_a_warm_start_has_ended(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"weight": torch.ones(300, 300)}, path)
    seen = []

    class Hooked(torch.nn.Linear):
        def _load_from_state_dict(self, *arguments: object) -> None:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except BlockingIOError:
                seen.append("leased")
            if ending != "well":
                raise RuntimeError("no")
            super()._load_from_state_dict(*arguments)  # type: ignore[arg-type]

    model = Hooked(300, 300, bias=False)
    try:
        tw.warm_start(model, str(path))
        error = None
    except tw.WarmStartError as raised:
        error = raised  # its traceback holds on to what it went through
    assert (error is None) == (ending == "well")
    assert seen == ["leased"]
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))


CHILD = """
import os, random, subprocess, sys
import torch, torch_warmstart as tw
from pathlib import Path

folder, kind, leases = Path(sys.argv[1]), *sys.argv[2:]
path = folder / "m"
good = torch.arange(400_000, dtype=torch.float32).reshape(1000, 400) + 1

def write():
    if kind == "torch":
        torch.save({"weight": good}, path)
    else:
        from safetensors.torch import save_file
        save_file({"weight": good}, path)

cutter = "import os, sys, time; time.sleep(float(sys.argv[2])); os.truncate(sys.argv[1], 4096)"
endings = set()
for seed in range(12):
    path.unlink(missing_ok=True)
    write()
    model = torch.nn.Linear(400, 1000, bias=False)
    torch.nn.init.zeros_(model.weight)
    plan = tw.plan_warm_start(model, str(path))
    writer = None if leases == "leased" else open(path, "r+b")  # as long as it is open, no lease
    delay = random.Random(seed).random() * 0.01
    cut = subprocess.Popen([sys.executable, "-S", "-c", cutter, str(path), str(delay)])
    try:
        while True:
            tw.apply_plan(plan)
            assert torch.equal(model.weight, good)
            torch.nn.init.zeros_(model.weight)
            endings.add("right")
    except tw.CorruptCheckpointError:
        assert not model.weight.any()
        endings.add("before")
    except tw.PartialWriteError:
        endings.add("told")
    cut.wait()
    if writer is not None:
        writer.close()
print(sorted(endings))
"""


@linux
@pytest.mark.parametrize("leases", ["leased", "not leased"])
@pytest.mark.parametrize("kind", ["safetensors", "torch"])
def test_a_file_that_is_cut_at_any_moment_ends_no_process(
    tmp_path: Path, kind: str, leases: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), kind, leases],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tw.__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert "before" in done.stdout or "told" in done.stdout


# ---- Many files ------------------------------------------------------------------------------

MANY = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
import torch, torch_warmstart as tw

checkpoint = tw.load_checkpoint(sys.argv[1])
model = torch.nn.Module()
for n in range(int(sys.argv[2])):
    model.register_parameter(f"v{n}", torch.nn.Parameter(torch.zeros(130, 130)))
tw.warm_start(model, checkpoint)
assert all(float(p.detach()[5, 5]) == int(name[1:]) for name, p in model.named_parameters())
print("right")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on descriptors")
def test_a_checkpoint_may_have_more_files_than_there_are_descriptors(tmp_path: Path) -> None:
    count = 2000
    names = {f"v{n}": f"model-{n}.safetensors" for n in range(count)}
    for n, (key, name) in enumerate(names.items()):
        save_file({key: torch.full((130, 130), float(n))}, tmp_path / name)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path), str(count)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tw.__file__).parents[1])},
        check=False,
    )
    assert done.stdout == "right\n", done.stderr[-2000:]
