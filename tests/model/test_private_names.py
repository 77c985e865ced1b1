"""What is private of torch.distributed and of TorchRec is touched in one folder."""

from __future__ import annotations

import re
from pathlib import Path

import torch_warmstart

PACKAGE = Path(torch_warmstart.__file__).parent
# As they are spelled where they are touched.
PRIVATE = re.compile(
    r"distributed_c10d\._|_fsdp_param_group|_get_fsdp_state|[.\"]_handle\b|[.\"]_local_tensor\b"
    r"|[.\"]_process_group\b|[.\"]_env\b|[.\"]_embedding_shardings\b|[.\"]_sharding_type_to_sharding"
    r"|__create_chunk_list__\(|__get_tensor_shard__\("
)


def test_only_one_folder_touches_them() -> None:
    found = {
        path.relative_to(PACKAGE).parent.as_posix()
        for path in PACKAGE.rglob("*.py")
        if PRIVATE.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"model/sharding"}
