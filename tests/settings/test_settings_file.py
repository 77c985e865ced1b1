"""Settings in a TOML file: what is said comes back, and what cannot be said is refused by name."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import torch_warmstart as tws
from torch_warmstart.settings.toml_text import toml_lines

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

normal = functools.partial(nn.init.normal_, std=0.02)
INFO = tws.VocabInfo(["b", "c"], 2, 1, Path("old.txt"), backup_initializer=nn.init.ones_)
SETTINGS = [
    tws.WarmStartSettings("model_dir"),
    tws.WarmStartSettings("model_dir", [".*", "a$"], on_missing="keep", verify=False, max_gap=5),
    tws.WarmStartSettings("model_dir", None, {"t.weight": INFO}),
    tws.WarmStartSettings(
        "x", ".*", {"head": tws.ClipOrPad(1, "keep")}, {"a.": "b/", "c": ["d", "e"]}
    ),
    tws.WarmStartSettings("x", var_name_to_prev_var_name=[(r"b\.(\d+)", r'c"_\1')]),
    tws.WarmStartSettings("x", var_name_to_layout={"a.weight": "identity"}),
    tws.WarmStartSettings("s3://b/c", storage_options={"anon": True, "client": {"retries": 3}}),
]


def saved(path, settings):
    tws.save_settings(path, settings)
    return tws.load_settings(path)


def said(settings):
    """Fields as they can be compared."""
    fields = {name: getattr(settings, name) for name in settings.__dataclass_fields__}
    renames = fields.pop("var_name_to_prev_var_name")
    if isinstance(renames, tws.NameRules):
        renames = (dict(renames.names), tuple(renames.patterns))
    elif isinstance(renames, list | tuple):
        renames = ({}, tuple(renames))
    fields["var_name_to_vocab_info"] = {
        name: repr(info).replace("PosixPath('old.txt')", "'old.txt'")
        for name, info in (fields["var_name_to_vocab_info"] or {}).items()
    }
    return fields, renames


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_is_saved_comes_back(tmp_path, settings):
    assert said(saved(tmp_path / "s.toml", settings)) == said(settings)


def test_a_list_of_settings_comes_back_as_one(tmp_path):
    found = saved(tmp_path / "s.toml", SETTINGS)
    assert [said(one) for one in found] == [said(one) for one in SETTINGS]


def test_an_initialiser_with_arguments_comes_back(tmp_path):
    info = tws.VocabInfo(["a"], 1, 0, ["a"], backup_initializer=normal)
    found = saved(tmp_path / "s.toml", tws.WarmStartSettings("x", None, {"t": info}))
    made = found.var_name_to_vocab_info["t"].backup_initializer
    assert (made.func, made.keywords) == (nn.init.normal_, {"std": 0.02})


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "warmstart.toml"
    path.write_text('ckpt_to_initialize_from = "m.pt"\n', encoding="utf-8-sig")
    assert tws.load_settings(path).ckpt_to_initialize_from == "m.pt"


def test_the_file_that_a_user_writes(tmp_path):
    path = tmp_path / "warmstart.toml"
    path.write_text(
        """
        ckpt_to_initialize_from = "model_dir"
        vars_to_warm_start = [".*"]
        on_missing = "keep"

        [var_name_to_vocab_info."city.weight"]
        new_vocab = "today.txt"
        new_vocab_size = 380
        num_oov_buckets = 2
        old_vocab = "yesterday.txt"
        backup_initializer = {name = "normal_", std = 0.02}

        [var_name_to_vocab_info.head]
        type = "ClipOrPad"

        [var_name_to_prev_var_name]
        "encoder." = "bert/encoder/"

        [var_name_to_prev_var_name.patterns]
        'blocks\\.(\\d+)' = 'block_\\1'
        """
    )
    settings = tws.load_settings(path)
    assert settings.var_name_to_vocab_info["city.weight"].new_vocab_size == 380
    assert settings.var_name_to_vocab_info["head"] == tws.ClipOrPad()
    assert settings.var_name_to_prev_var_name.names == {"encoder.": "bert/encoder/"}
    assert settings.var_name_to_prev_var_name.patterns == ((r"blocks\.(\d+)", r"block_\1"),)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (tws.WarmStartSettings(nn.Linear(1, 1)), "ckpt_to_initialize_from is a Linear"),
        (
            tws.WarmStartSettings({"a": torch.ones(1)}),
            r"ckpt_to_initialize_from\['a'\] is a Tensor",
        ),
        (tws.WarmStartSettings("x", [torch.ones(1)]), r"vars_to_warm_start\[0\] is a Tensor"),
        (
            tws.WarmStartSettings("x", var_name_to_prev_var_name=str.upper),
            "var_name_to_prev_var_name is a method_descriptor",
        ),
        (
            tws.WarmStartSettings("x", None, {"t": tws.ClipOrPad(0, lambda t: t)}),
            r"var_name_to_vocab_info\['t'\].backup_initializer is a function",
        ),
        (
            tws.WarmStartSettings(
                "x", None, {"t": tws.ClipOrPad(0, nn.init.normal_, generator=torch.Generator())}
            ),
            r"var_name_to_vocab_info\['t'\].generator is a Generator",
        ),
        (
            tws.WarmStartSettings("x", None, {"t": tws.VocabInfo([b"a"], 1, 0, ["a"])}),
            r"var_name_to_vocab_info\['t'\].new_vocab\[0\] is a bytes",
        ),
        (
            tws.WarmStartSettings("x", storage_options={"n": 1 << 70}),
            r"storage_options\['n'\] has more than the 64 bits",
        ),
        (
            tws.WarmStartSettings("x", None, {"t": tws.VocabInfo([1, 1 << 63])}),
            r"var_name_to_vocab_info\['t'\].new_vocab\[1\] has more than the 64 bits",
        ),
        (
            tws.WarmStartSettings(
                "x", None, {"t": tws.ClipOrPad(0, functools.partial(nn.init.normal_, std=1 << 70))}
            ),
            "64 bits",
        ),
        ([], "needs at least one"),
    ],
)
def test_what_toml_cannot_say_is_refused_by_name(tmp_path, settings, field):
    with pytest.raises(tws.SettingsError, match=field):
        tws.save_settings(tmp_path / "s.toml", settings)
    assert not (tmp_path / "s.toml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "s.toml is no TOML file"),
        ("", "s.toml: WarmStartSettings needs ckpt_to_initialize_from"),
        (
            "ckpt_to_initialise_from = 'x'",
            "no field 'ckpt_to_initialise_from'. Did you mean 'ckpt_to_in",
        ),
        (
            "ckpt_to_initialize_from = 'x'\non_missing = 'no'",
            "s.toml: on_missing is 'error' or 'keep'",
        ),
        (
            "ckpt_to_initialize_from = 'x'\n[var_name_to_vocab_info.t]\nold_vocab = 'a'",
            "s.toml: var_name_to_vocab_info.t: VocabInfo needs",
        ),
        (
            "ckpt_to_initialize_from = 'x'\n[var_name_to_vocab_info.t]\ntype = 'Vocab'",
            "type is 'VocabInfo' or 'ClipOrPad'",
        ),
        (
            "ckpt_to_initialize_from = 'x'\n[var_name_to_vocab_info.t]\ntype = ['ClipOrPad']",
            "type is 'VocabInfo' or 'ClipOrPad'",
        ),
        (
            "ckpt_to_initialize_from = 'x'\n[var_name_to_vocab_info.t]\ntype = 'ClipOrPad'\n"
            "backup_initializer = 'normals'",
            "or a function of torch.nn.init or of tws.init, not 'normals'. Did you mean 'normal",
        ),
        ("warm_start = 3", r"\[\[warm_start\]\] tables are a list of settings"),
        (
            "ckpt_to_initialize_from = 'x'\n[var_name_to_prev_var_name]\na = 3",
            "var_name_to_prev_var_name: 'a' is for a name, not for 3",
        ),
    ],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path, text, message):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(tws.SettingsError, match=message):
        tws.load_settings(tmp_path / "s.toml")


def test_a_file_that_is_not_there():
    with pytest.raises(tws.SettingsError, match="Settings file nowhere.toml cannot be read"):
        tws.load_settings("nowhere.toml")


def test_what_is_no_settings_is_not_saved(tmp_path):
    with pytest.raises(tws.SettingsError, match="takes WarmStartSettings, not a int"):
        tws.save_settings(tmp_path / "s.toml", [np.int64(3).item()])


# -- the writer ------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
plain = st.one_of(
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False),
    words,
    st.lists(words, max_size=3),
)
tables = st.recursive(
    st.dictionaries(words, plain, max_size=4),
    lambda inner: st.dictionaries(
        words, st.one_of(plain, inner, st.lists(inner, min_size=1, max_size=2)), max_size=4
    ),
    max_leaves=8,
)


@given(tables)
def test_pythons_parser_reads_what_is_written(table):
    assert tomllib.loads("\n".join(toml_lines(table))) == table


INFOS = 'ckpt_to_initialize_from = "m.pt"\n[var_name_to_vocab_info.'


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (INFOS + 't.weight]\nnew_vocab = ["a"]', "'weight' in it is a table. A name with dots"),
        (
            INFOS + 't]\nnew_segments = [["a", 1]]\nold_segments = [["a", 1]]',
            'has what a SegmentInfo has, and is none: write type = "SegmentInfo"',
        ),
        (INFOS + 't]\ntype = "ClipOrPad"\nnew_vocab = ["a"]', 'write type = "VocabInfo"'),
        (INFOS + "t]\nnew_vocabs = 1", "VocabInfo has no field 'new_vocabs'"),
        (
            'ckpt_to_initialize_from = "m.pt"\n[var_name_to_prev_var_name]\nt.weight = "e"',
            "'t' is for a name, not for .* A name with dots stands in quotes",
        ),
    ],
    ids=["dots", "segments", "kind", "typo", "rename"],
)
def test_a_table_of_another_kind_is_told_what_to_write(tmp_path, text, match):
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(tws.SettingsError, match=match):
        tws.load_settings(tmp_path / "s.toml")


def test_mappings_as_vocabularies_are_no_names_with_dots(tmp_path):
    text = INFOS + "t]\nnew_vocab = {a = 0}\nold_vocab = {a = 1, b = 0}"
    (tmp_path / "s.toml").write_text(text)
    info = tws.load_settings(tmp_path / "s.toml").var_name_to_vocab_info["t"]
    assert info.old_vocab == {"a": 1, "b": 0}
