"""alias, subword and group_mean: mixtures that are known from entries alone, in the dry run too."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from rows_helpers import info_of, letters, start, table
from torch import nn

import torch_warmstart as tws
from torch_warmstart import SettingsError, init

GPT2 = ["Ġnet", "work", "Ġthe", "Ġ", "Ċ", "cafÃ©", "<|endoftext|>"]


def test_an_alias_by_mapping_is_that_row_exactly():
    old = table(4, 3)
    weight, account = start(
        old, list("abcd"), ["a", "x", "y", "z"], init.alias({"x": "d", "z": "b"}) | init.mean()
    )
    assert torch.equal(weight[[1, 3]], old[[3, 1]])
    assert account.new_rows.answered == (("alias", 2), ("mean", 1))
    assert account.new_rows.show("x") == "x = d"


def test_an_alias_of_what_is_not_there_is_an_error():
    with pytest.raises(tws.PlanError, match="1 of the old entries it names .such as 'q'."):
        start(table(2, 3), ["a", "b"], ["a", "x"], init.alias({"x": "q"}))


def test_ids_may_have_aliases_too():
    old = table(3, 2)
    weight, _ = start(old, [10, 20, 30], [20, 99], init.alias({99: 30}))
    assert torch.equal(weight, old[[1, 2]])


@pytest.mark.parametrize(
    ("old", "new", "how", "found"),
    [
        (["STRASSE", "b"], ["b", "straße", "B"], "casefold", {"straße": "STRASSE", "B": "b"}),
        (["Ab", "aB"], ["ab", "Ab"], "casefold", {"ab": "Ab"}),
        (["run", "ru", "x"], ["running", "rx", "x"], "prefix", {"running": "run"}),
        (["a", "a/men"], ["a", "a/men/boots"], "prefix", {"a/men/boots": "a/men"}),
        (["Ġ", "▁", "##", "ĠĠ", "Ġr", "##ru"], ["Ġrun", "▁run", "##run", "ĠĠrun", " x", "##x"],
         "prefix", {"##run": "##ru"}),  # what all words begin with says nothing
        (GPT2, ["▁net", "work", "▁", "<0x0A>", "café", "</s>"], "bytes",
         {"▁net": "Ġnet", "▁": "Ġ", "<0x0A>": "Ċ", "café": "cafÃ©"}),
        (["[P]", "net", "##work"], ["[P]", "Ġnet", "work", "Ġx"], "bytes",
         {"Ġnet": "net", "work": "##work"}),
    ],
)  # fmt: skip
def test_an_alias_by_how_entries_are_written(old, new, how, found):
    weight, account = start(
        torch.arange(1.0, len(old) + 1)[:, None].expand(-1, 2).clone(), old, new, init.alias(how)
    )
    assert _aliases(old, new, weight) == found
    assert account.new_rows.answered[0] == (f"alias({how})", len(found))


def _aliases(old, new, weight):
    rows = zip(new, weight[:, 0].int().tolist(), strict=True)
    return {entry: old[row - 1] for entry, row in rows if row and entry not in old}


@pytest.mark.parametrize("entries", [["x", "yy", "a longer entry than most"], [7, -8, 2**40]])
def test_an_entry_takes_the_oov_row_that_it_has_used_until_now(entries):
    # The buckets are TensorFlow's, of tf.strings.to_hash_bucket_fast(..., 5).
    known = ["a", "b"] if isinstance(entries[0], str) else [1, 2]
    buckets = {"x": 0, "yy": 2, "a longer entry than most": 4, 7: 3, -8: 1, 2**40: 3}
    old = table(7, 3)
    how = init.alias("oov_bucket", num_oov_buckets=5)
    weight, _ = start(old, known, [*known, *entries], how)
    assert torch.equal(weight[2:], old[[2 + buckets[entry] for entry in entries]])


def test_how_many_oov_rows_there_were_is_known_from_the_settings_or_asked_for():
    old = table(7, 3)
    more = {"num_oov_buckets": 5, "old_num_oov_buckets": 5}
    weight, _ = start(old, ["a", "b"], ["a", "b", "yy"], init.alias("oov_bucket"), **more)
    assert torch.equal(weight[2], old[2 + 2])
    with pytest.raises(tws.PlanError, match="must know how many OOV rows") as raised:
        start(old, ["a", "b"], ["a", "b", "yy"], init.alias("oov_bucket"))
    assert 'init.alias("oov_bucket", num_oov_buckets=...)' in str(raised.value)
    advised = init.alias("oov_bucket", num_oov_buckets=5)
    assert torch.equal(start(old, ["a", "b"], ["a", "b", "yy"], advised)[0][2], old[2 + 2])


# -- subword ---------------------------------------------------------------------------------------

PIECES = {"xyz": ["a", "b", "c"], "y": ["b"], "z": ["b", "nowhere"], "v": ["nowhere"]}
OLD = list("abc")


@pytest.mark.parametrize(
    ("weights", "role", "wanted"),
    [
        ("mean", "auto", [1 / 3, 1 / 3, 1 / 3]),
        ("last", "auto", [0, 0, 1]),
        ("first", "auto", [1, 0, 0]),
        ("exp", "auto", [1 / 7, 2 / 7, 4 / 7]),
        ("exp", "input", [1 / 7, 2 / 7, 4 / 7]),
        ("exp", "output", [4 / 7, 2 / 7, 1 / 7]),
    ],
)
def test_pieces_are_weighted_by_their_place(weights, role, wanted):
    old = table(3, 5)
    weight, account = start(old, OLD, [*OLD, *PIECES], init.subword(PIECES, weights, role))
    torch.testing.assert_close(weight[3], torch.tensor(wanted).float() @ old)
    assert torch.equal(weight[4], old[1])  # of one piece, exactly
    assert torch.equal(weight[5], old[1])  # what is not there has no weight
    assert account.new_rows.answered == (("subword", 3), ("zeros", 1))
    assert not weight[6].any()


def test_a_row_can_be_shown():
    pieces = {"réseau": ["a", "b"], "long": ["c", "b", "a"], "net": ["b"], "bab": ["b", "a", "b"]}
    _, account = start(table(3, 5), OLD, [*OLD, *pieces], init.subword(pieces, "exp"))
    assert account.new_rows.show("bab") == "bab = 0.71 b + 0.29 a"
    assert account.new_rows.show("réseau") == "réseau = 0.67 b + 0.33 a"
    assert account.new_rows.show("long") == "long = 0.57 a + 0.29 b + 1 more"
    assert account.new_rows.show("net") == "net = b"
    with pytest.raises(KeyError):
        account.new_rows.show("a")


def test_a_row_of_an_id_is_shown_for_numpys_integers_too():
    _, account = start(table(2, 5), [1, 2], [1, 2, 99], init.mean(of="all"))
    assert account.new_rows.show(np.int64(99)) == "99 = a row by mean"
    for other in (99.0, True, None, "99"):
        with pytest.raises(KeyError):
            account.new_rows.show(other)


def test_a_function_gets_the_text_of_a_token():
    asked = []

    def cut(text):
        asked.append(text)
        return ["b"]

    new = ["Ġnet", "work", "<|end|>", "Ã©", "Ã", "b"]
    start(table(3, 5), OLD, new, init.subword(cut) | init.mean())
    assert asked == [" net", "work", "é"]  # no special token, and no half of a letter


def test_ids_of_pieces_are_rows():
    old = table(3, 5)
    weight, _ = start(old, OLD, [*OLD, "net"], init.subword(lambda text: [2, 0]))
    torch.testing.assert_close(weight[3], (old[2] + old[0]) / 2)
    with pytest.raises(tws.PlanError, match="gives id 3, but the old vocabulary has 3 rows"):
        start(old, OLD, [*OLD, "net"], init.subword(lambda text: [3]))


def test_tokenizers_of_the_libraries_cut_as_they_do():
    tokenizers = pytest.importorskip("tokenizers")
    vocab = {"[UNK]": 0, "net": 1, "##work": 2, "##s": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    old = table(4, 6)
    new = ["Ġnetworks", "Ġnets", "Ġzzz"]
    made = [init.subword(tokenizer)]
    transformers = pytest.importorskip("transformers")
    made.append(
        init.subword(
            transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
        )
    )
    for initializer in made:
        weight, account = start(old, list(vocab), new, initializer | init.mean())
        torch.testing.assert_close(weight[0], old[[1, 2, 3]].mean(0))
        torch.testing.assert_close(weight[1], old[[1, 3]].mean(0))
        assert account.new_rows.answered == (("subword", 2), ("mean", 1))


def test_the_dry_run_knows_who_answers_without_a_value(monkeypatch):
    model = nn.Embedding(7, 5)
    info = info_of([*OLD, *PIECES], OLD, init.subword(PIECES) | init.mean())
    settings = tws.WarmStartSettings(
        {"weight": table(3, 5)}, var_name_to_vocab_info={"weight": info}
    )
    plan = str(tws.plan_warm_start(model, settings))
    assert "new rows: 3 subword, 1 mean (needs one pass over the old rows)" in plan


# -- groups ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, int])
def test_the_mean_of_a_group_is_pandas_groupby(kind):
    ids = np.arange(500) if kind is int else np.array(letters(500))
    group = np.random.default_rng(0).integers(0, 12, 500)
    old, new = ids[:300].tolist(), ids.tolist()
    values = table(300, 6)
    groups = dict(zip(new, group.tolist(), strict=True))
    groups[new[499]] = "no old one has it"
    weight, account = start(values, old, new, init.group_mean(groups) | init.mean())
    means = pd.DataFrame(values.double().numpy()).groupby(group[:300]).mean()
    wanted = torch.tensor(means.loc[group[300:499]].to_numpy()).float()
    torch.testing.assert_close(weight[300:499], wanted)
    assert account.new_rows.answered == (("group_mean", 199), ("mean", 1))


def test_who_has_no_group_is_not_answered():
    groups = {"a": 1, "b": 1, "x": 1}
    old = table(2, 3)
    weight, account = start(old, ["a", "b"], ["x", "y"], init.group_mean(groups))
    torch.testing.assert_close(weight[0], old.mean(0))
    assert account.new_rows.answered == (("group_mean", 1), ("zeros", 1))


def test_rows_by_position_have_no_entries():
    info = tws.ClipOrPad(backup_initializer=init.subword({"a": "b"}))
    settings = tws.WarmStartSettings(
        {"weight": table(2, 3)}, var_name_to_vocab_info={"weight": info}
    )
    with pytest.raises(SettingsError, match="its rows go by position and have no entries"):
        tws.warm_start(nn.Embedding(4, 3), settings)
    model = nn.Embedding(4, 3)
    info = tws.ClipOrPad(backup_initializer=init.mean())
    settings = tws.WarmStartSettings(
        {"weight": table(2, 3)}, var_name_to_vocab_info={"weight": info}
    )
    tws.warm_start(model, settings)
    torch.testing.assert_close(model.weight[2:].detach(), table(2, 3).mean(0).expand(2, -1))
