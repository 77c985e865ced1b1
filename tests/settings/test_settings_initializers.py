"""Initialisers, old vocabularies and patterns in a settings file: they come back, equal."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import torch_warmstart as tws
from torch_warmstart import init

TABLE = (["a", "b"], ("donor.safetensors", "embed.weight"))
INITIALIZERS = [
    init.mean(),
    init.mean("all"),
    init.normal(),
    init.normal("diagonal", 0.5, of="all"),
    init.subword("old/tokenizer.json"),
    init.subword({"ab": ["a", "b"], "ba": ["b", "a"]}, "exp", "output"),
    init.subword({7: [1, 2]}),
    init.similar("cc.fr.300.vec"),
    init.similar(
        TABLE,
        None,
        weights="sparsemax",
        temperature=1,
        anchors="shared",
        old_vectors="old.vec",
        of="all",
    ),
    init.omp(TABLE, 16),
    init.alias({"colour": "color"}),
    init.alias({17: 18}),
    init.alias("oov_bucket", num_oov_buckets=3),
    init.group_mean({"a": "x", "b": "y"}),
    init.group_mean({1 << 40: 3, 5: 3}),
    init.vectors("glove.txt"),
    init.vectors(TABLE, None, ridge=0.5),
    init.mean() + init.noise(0.02),
    init.mean() + init.noise(0.02) + init.noise(0.1),
    init.alias("casefold") | init.subword("old.model") + init.noise(0.1) | init.mean(),
    (init.alias("casefold") | init.mean()) + init.noise(0.3),
    (init.alias("prefix") | init.normal()) + init.noise(0.3) | init.mean(),
    nn.init.xavier_uniform_,
    "keep",
]


def saved(path: Any, settings: tws.WarmStartSettings) -> Any:
    tws.save_settings(path, settings)
    return tws.load_settings(path)


@pytest.mark.parametrize(
    "initializer", INITIALIZERS, ids=lambda one: getattr(one, "__name__", str(one))
)
def test_every_initialiser_comes_back_equal(tmp_path: Any, initializer: Any) -> None:
    info = tws.VocabInfo("new.txt", old_vocab="old.txt", backup_initializer=initializer)
    settings = tws.WarmStartSettings("x", None, {"t": info, "u": [tws.ClipOrPad(1), info]})
    found = saved(tmp_path / "s.toml", settings)
    assert found == settings
    first = (tmp_path / "s.toml").read_text()
    tws.save_settings(tmp_path / "s.toml", found)
    assert (tmp_path / "s.toml").read_text() == first


def test_all_of_tws_init_are_among_them() -> None:
    said = " ".join(map(str, INITIALIZERS))
    names = {"alias" if name.startswith("alias") else name for name in re.findall(r"\w+", said)}
    assert set(init.__all__) <= names


def test_initialisers_are_equal_if_they_were_told_the_same() -> None:
    for at, one in enumerate(INITIALIZERS[:-2]):
        assert [at] == [there for there, other in enumerate(INITIALIZERS) if other == one]
        assert isinstance(hash(one), int)
    table = torch.ones(2, 2)
    assert init.omp((["a"], table)) == init.omp((["a"], table))
    assert init.omp((["a"], table)) != init.omp((["a"], table.clone()))
    assert init.mean() != init.normal()


def test_old_vocabularies_of_the_checkpoint_come_back(tmp_path: Any) -> None:
    named = tws.FROM_CHECKPOINT["genres"]
    fallback = [("week.pt", tws.FROM_CHECKPOINT), ("month.pt", named), ("year.pt", "year.txt")]
    infos = {
        "a": tws.VocabInfo("new.txt", old_vocab=named, fallback=fallback),
        "b": tws.VocabInfo("new.txt"),
        "c": tws.VocabInfo("new.txt", old_vocab={"from_checkpoint": 1, "a": 0}),
        "d": tws.VocabInfo("new.txt", old_vocab={"from_checkpoint": 0}),
    }
    settings = tws.WarmStartSettings("x", None, infos)
    assert saved(tmp_path / "s.toml", settings) == settings
    assert 'from_checkpoint = "genres"' in (tmp_path / "s.toml").read_text()


FILE = r"""
ckpt_to_initialize_from = "yesterday.pt"

[var_name_to_vocab_info.head]
type = "ClipOrPad"

[var_name_to_vocab_info.patterns.'tables\.(?P<name>\w+)\.weight']
new_vocab = 'today/\1.txt'
old_vocab = {from_checkpoint = 'lookup_\g<name>'}
backup_initializer = [{name = "similar", vectors = '\1.vec'}, {name = "mean", noise = 0.02}]

[var_name_to_vocab_info.patterns.'bias']
type = "ClipOrPad"
"""


def test_one_pattern_says_it_for_many_tables(tmp_path: Any) -> None:
    (tmp_path / "s.toml").write_text(FILE)
    settings = tws.load_settings(tmp_path / "s.toml")
    assert isinstance(settings, tws.WarmStartSettings)
    (pattern, template), (bias, clipped) = settings.pattern_infos.items()
    match = pattern.fullmatch("tables.city.weight")
    assert match is not None
    assert template(match) == tws.VocabInfo(
        "today/city.txt",
        old_vocab=tws.FROM_CHECKPOINT["lookup_city"],
        backup_initializer=init.similar("city.vec") | init.mean() + init.noise(0.02),
    )
    assert (bias.pattern, clipped) == ("bias", tws.ClipOrPad())
    assert settings.named_infos == {"head": tws.ClipOrPad()}
    assert saved(tmp_path / "t.toml", settings) == settings


def test_a_file_with_a_pattern_warm_starts_every_table(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("city", "genre"):
        (tmp_path / f"{name}.old").write_text(f"{name} a\n{name} b\n")
        (tmp_path / f"{name}.new").write_text(f"new\n{name} b\n{name} a\n")
    old = {f"{name}.weight": torch.rand(2, 3) for name in ("city", "genre")}
    torch.save(old, "old.pt")
    (tmp_path / "s.toml").write_text(
        "ckpt_to_initialize_from = 'old.pt'\n"
        r"[var_name_to_vocab_info.patterns.'(\w+)\.weight']"
        "\nnew_vocab = '\\1.new'\nold_vocab = '\\1.old'\nbackup_initializer = 'mean'\n"
    )
    model = nn.ModuleDict({name: nn.Embedding(3, 3) for name in ("city", "genre")})
    tws.warm_start(model, tws.load_settings("s.toml"))
    for name in ("city", "genre"):
        weight, was = model[name].weight.detach(), old[f"{name}.weight"]
        assert torch.equal(weight[1:], was.flip(0))
        torch.testing.assert_close(weight[0], was.mean(0))


def test_a_module_may_be_called_patterns(tmp_path: Any) -> None:
    infos = {"patterns": tws.VocabInfo({"a": 0}), "x": tws.ClipOrPad()}
    settings = tws.WarmStartSettings("x", None, infos)
    assert saved(tmp_path / "s.toml", settings) == settings
    both = tws.WarmStartSettings("x", None, {**infos, re.compile("a"): tws.ClipOrPad()})
    with pytest.raises(tws.SettingsError, match="no second place for a module 'patterns'"):
        tws.save_settings(tmp_path / "s.toml", both)


def first_row(new: tws.NewRows) -> torch.Tensor:
    return new.old.read(torch.zeros(len(new), dtype=torch.int64))


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (init.alias("casefold") | first_row, r"backup_initializer\[1\] is a function, which"),
        (init.subword(str.split), "backup_initializer.pieces is a method_descriptor"),
        (init.omp((["a"], torch.ones(1, 1))), r"backup_initializer.donor\[1\] is a Tensor"),
        (init.mean() | init.alias({b"a": b"b"}), r"\[1\].mapping, a key, is a bytes"),
        (init.group_mean({"a": (1.5, object())}), r"groups\['a'\]\[1\] is a object"),
    ],
    ids=str,
)
def test_what_a_file_cannot_say_of_an_initialiser_is_told_by_name(
    tmp_path: Any, info: Any, message: str
) -> None:
    settings = tws.WarmStartSettings("x", None, {"t": tws.VocabInfo("n", backup_initializer=info)})
    with pytest.raises(tws.SettingsError, match=message) as caught:
        tws.save_settings(tmp_path / "s.toml", settings)
    assert "var_name_to_vocab_info['t']." in str(caught.value)
    assert not (tmp_path / "s.toml").exists()


@pytest.mark.parametrize(
    ("key", "info", "message"),
    [
        (re.compile("T", re.IGNORECASE), tws.ClipOrPad(), "has flags; write them into the pattern"),
        (re.compile("t"), lambda match: None, r"\['t'\] is a function"),
        (re.compile("(t)"), tws.VocabInfo(r"\1.txt"), "would stand for a group"),
    ],
)
def test_what_a_file_cannot_say_of_patterns(
    tmp_path: Any, key: Any, info: Any, message: str
) -> None:
    with pytest.raises(tws.SettingsError, match=message):
        tws.save_settings(tmp_path / "s.toml", tws.WarmStartSettings("x", None, {key: info}))


HEAD = "ckpt_to_initialize_from = 'x'\n[var_name_to_vocab_info.t]\nnew_vocab = 'n'\n"
PATTERN = "ckpt_to_initialize_from = 'x'\n[var_name_to_vocab_info.patterns.'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "backup_initializer = {name = 'mean', off = 'all'}", "mean has no argument 'off'"),
        (HEAD + "backup_initializer = {name = 'mean', of = 'some'}", "init.mean: of is"),
        (HEAD + "backup_initializer = 'subword'", "subword needs pieces"),
        (HEAD + "backup_initializer = {name = 'normal_', sdt = 1}", "no argument 'sdt'. Did you"),
        (HEAD + "backup_initializer = {name = 'normal_', tensor = 1}", "no argument 'tensor'"),
        (HEAD + "backup_initializer = {name = 'ones_', noise = 1}", "noise is added to"),
        (HEAD + "backup_initializer = ['mean', 'ones_']", "a list is of initialisers of tws.init"),
        (HEAD + "backup_initializer = []", "a list is of initialisers of tws.init"),
        (HEAD + "backup_initializer = ['mean', {name = 'noise', scale = 1}]", r"added with \+"),
        (HEAD + "backup_initializer = {first_of = ['mean'], of = 'all'}", "nothing but noise"),
        (HEAD + "backup_initializer = {name = 'mean', noise = -1}", "noise: scale is a positive"),
        (HEAD + "backup_initializer = {noise = 1}", "not None"),
        (HEAD + "backup_initializer = {name = 'alias', mapping = 3}", "mapping is 'casefold'"),
        (HEAD + "old_vocab = {from_checkpoint = ''}", "FROM_CHECKPOINT takes the name"),
        (PATTERN + "('] \nnew_vocab = 'n'", "is no regular expression"),
        (PATTERN + "(t)']\nnew_vocab = '\\2.txt'", r"\\2 is no group of the pattern '\(t\)'"),
        (PATTERN + "(t)']\nold_vocab = '\\1.txt'", "VocabInfo needs new_vocab"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_where(tmp_path: Any, text: str, message: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(tws.SettingsError, match=message) as caught:
        tws.load_settings(tmp_path / "s.toml")
    assert "var_name_to_vocab_info." in str(caught.value)
