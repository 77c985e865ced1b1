"""Lines that have more in them than an entry: what would match is said."""

from __future__ import annotations

import pytest
import torch

import torch_warmstart as tws

TOKENS = [f"token{letter}" for letter in "abcdefghij"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{at} {token}", "only the second of the columns that spaces separate were read"),
        ("{token}:{at}", "only what stands before the last ':' were read"),
        ("{token}={at}", "only what stands before the last '=' were read"),
        ("{at}={token}", "only what stands behind the last '=' were read"),
        ("f{at};{token}", "only the second of the columns that semicolons separate were read"),
        ("f{at}|{token}", "only the second of the columns that bars separate were read"),
    ],
)
def test_a_part_of_each_line_that_would_match_is_told(line, said):
    old = [line.format(at=at, token=token) for at, token in enumerate(TOKENS)]
    info = tws.VocabInfo(TOKENS, old_vocab=old)
    settings = tws.WarmStartSettings({"weight": torch.ones(10, 2)}, ".*", {"weight": info})
    with pytest.raises(tws.PlanError, match="None of the 10 entries") as caught:
        tws.plan_warm_start(torch.nn.Embedding(10, 2), settings)
    assert f"10 of 10 that were tried would be found if {said}" in str(caught.value)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        (["user {}"], ["item {}"]),
        (["user:{}"], ["item:{}"]),
        (["{}=x"], ["{}=y"]),
        (["user {}", "shop {}"], ["item {}", "page {}"]),
        (["a,{}"], ["b,{}"]),
        (["{}:", "n{}"], ["a:{}:=", "={}="]),  # nothing before or behind a sign
    ],
)
def test_numbers_of_other_kinds_of_things_are_other_entries(new, old):
    new, old = ([one.format(at) for at in range(20) for one in side] for side in (new, old))
    info = tws.VocabInfo(new, old_vocab=old)
    settings = tws.WarmStartSettings({"w": torch.ones(len(old), 2)}, ".*", {"w": info})
    model = torch.nn.Module()
    model.w = torch.nn.Parameter(torch.ones(len(new), 2))
    (item,) = tws.plan_warm_start(model, settings).items
    assert item.rows.copied == 0


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_one_column_of_a_table_may_have_a_name(suffix, tmp_path):
    path = tmp_path / f"v.{suffix}"
    path.write_text("\n".join(["token", *TOKENS, ""]))
    with pytest.raises(tws.VocabularyError, match="is a table: say which column"):
        tws.Vocabulary.load(path)
    assert tws.Vocabulary.load(path, format="lines").entries[0] == b"token"
    pytest.importorskip("pyarrow")
    assert list(tws.Vocabulary.load(path, column="token").entries) == [t.encode() for t in TOKENS]
    assert len(tws.Vocabulary.load(path, column=0)) == len(TOKENS) + 1
