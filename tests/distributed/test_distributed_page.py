"""The page of models on many ranks says what runs: its blocks do, on two ranks."""

from __future__ import annotations

from pathlib import Path

import page_jobs
from distributed_page import blocks
from ranks import started

ELSEWHERE = {"TorchRec", "Ray Train"}  # in test_torchrec.py and test_ray_train.py


def test_the_blocks_fill_models_on_two_ranks(tmp_path: Path) -> None:
    found = blocks()
    codes = [code for name, of_it in found.items() if name not in ELSEWHERE for code in of_it]
    with started(2) as ranks:
        ranks.run(page_jobs.save_yesterday, str(tmp_path))
        for results in ranks.run(page_jobs.run, codes, str(tmp_path)):
            assert len(results) == len(codes) == 4
            assert [code for code, is_filled in results if not is_filled] == []
    assert set(found) > ELSEWHERE
