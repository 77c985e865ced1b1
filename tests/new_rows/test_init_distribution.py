"""mean, normal and noise: equal to what they are defined as, whatever the blocks and the parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rows_helpers import letters, start, table

import torch_warmstart as tws
from torch_warmstart import SettingsError, init
from torch_warmstart.new_rows import moments
from torch_warmstart.new_rows.drawing import draw_normals

OLD = letters(300)
NEW = [*OLD[:100], "new", *OLD[100:], "newer"]
AT = [100, 301]


def test_the_mean_is_the_mean_in_float64():
    old = table(300, 7) * 100 + 1e4
    weight, account = start(old, OLD, NEW, init.mean())
    torch.testing.assert_close(weight[AT], old.double().mean(0).float().expand(2, -1))
    assert account.new_rows.answered == (("mean", 2),)


def test_the_mean_does_not_depend_on_the_size_of_blocks(monkeypatch):
    old = table(300, 7)
    whole, _ = start(old, OLD, NEW, init.mean())
    monkeypatch.setattr(moments, "BLOCK", 24)
    weight, _ = start(old, OLD, NEW, init.mean())
    torch.testing.assert_close(weight[AT], whole[AT], rtol=1e-6, atol=1e-7)


def test_rows_behind_the_vocabulary_are_none_of_the_mean():
    old = table(300, 7)
    padded = torch.cat([old, torch.full((20, 7), 50.0)])
    weight, _ = start(padded, OLD, NEW, init.mean())
    torch.testing.assert_close(weight[100], old.mean(0))


def test_rows_that_look_untrained_are_left_out_unless_all_are_asked_for():
    old = table(300, 7)
    old[5] = 0
    old[9] *= 1e-4
    kept_free = ["[unused3]", "<|reserved_special_token_7|>", "madeupword0001", "MADEUPWORD0002"]
    entries = [*OLD[:20], *kept_free, *OLD[24:]]
    trained = torch.ones(300, dtype=torch.bool)
    trained[[5, 9, 20, 21, 22, 23]] = False
    weight, _ = start(old, entries, [*entries, "new"], init.mean())
    torch.testing.assert_close(weight[-1], old[trained].mean(0))
    weight, _ = start(old, entries, [*entries, "new"], init.mean(of="all"))
    torch.testing.assert_close(weight[-1], old.mean(0))


def test_a_small_bias_is_not_untrained():
    old = table(300, 1)
    weight, _ = start(old, OLD, NEW, init.mean())
    torch.testing.assert_close(weight[100], old.mean(0))


def test_a_table_without_a_trained_row_is_an_error_and_nothing_is_changed():
    model = torch.nn.Embedding(302, 7)
    before = model.weight.detach().clone()
    vocab = tws.VocabInfo(NEW, 302, 0, OLD, backup_initializer=init.mean())
    settings = tws.WarmStartSettings(
        {"weight": torch.zeros(300, 7)}, var_name_to_vocab_info={"weight": vocab}
    )
    with pytest.raises(SettingsError, match="weight: none of the old rows looks trained"):
        tws.warm_start(model, settings)
    assert torch.equal(model.weight, before)


def test_a_normal_has_the_mean_and_the_covariance_of_the_old_rows():
    old = table(300, 8) @ table(8, 8, 1) + 3
    new = letters(20_000, "n")
    torch.manual_seed(0)
    weight, _ = start(old, OLD, [*OLD, *new], init.normal())
    drawn, count = weight[300:].double(), len(new)
    centred = old.double() - old.double().mean(0)
    wanted = centred.T @ centred / 300
    spread = (drawn.mean(0) - old.double().mean(0)) / (wanted.diagonal() / count).sqrt()
    assert spread.abs().max() < 5
    d = wanted.diagonal()
    error = (torch.outer(d, d) + wanted**2).div(count).sqrt()  # of a sample covariance
    assert ((torch.cov(drawn.T) - wanted).abs() / error).max() < 5


def test_a_diagonal_normal_has_no_covariance_and_a_scale():
    old = table(300, 4) @ table(4, 4, 1)
    weight, _ = start(old, OLD, [*OLD, *letters(20_000, "n")], init.normal("diagonal", 0.5))
    found = torch.corrcoef(weight[300:].T)
    assert (found - torch.eye(4)).abs().max() < 0.05
    spread = weight[300:].std(0) / (0.5 * old.std(0, correction=0))
    torch.testing.assert_close(spread, torch.ones(4), atol=0.03, rtol=0)


def test_a_covariance_of_less_than_full_rank_draws_within_its_span():
    old = table(300, 2) @ table(2, 9, 1)
    weight, _ = start(old, OLD, [*OLD, *letters(50, "n")], init.normal())
    assert torch.isfinite(weight).all()
    assert torch.linalg.matrix_rank(weight[300:], rtol=1e-3) == 2


def test_one_generator_draws_the_same_rows_and_goes_on():
    old = table(300, 7)
    generator = torch.Generator()
    rows = []
    for seed in (3, 3, 4):
        generator.manual_seed(seed)
        rows.append(start(old, OLD, NEW, init.normal(), generator=generator)[0])
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0][100], rows[2][100])
    assert not torch.equal(start(old, OLD, NEW, init.normal(), generator=generator)[0], rows[2])


def test_what_needs_no_chance_leaves_torch_s_generator_alone():
    model = torch.nn.Embedding(302, 7)
    before = torch.get_rng_state()
    for initializer, drawn in ((init.mean(), False), (init.normal(), True)):
        vocab = tws.VocabInfo(NEW, 302, 0, OLD, backup_initializer=initializer)
        settings = tws.WarmStartSettings(
            {"weight": table(300, 7)}, var_name_to_vocab_info={"weight": vocab}
        )
        tws.warm_start(model, settings)
        assert torch.equal(torch.get_rng_state(), before) != drawn


@pytest.mark.parametrize("numbers", [[0], [63, 64, 65], [700, 3, 200], list(range(100, 300))])
def test_a_part_of_what_is_drawn_is_that_part_of_the_whole(numbers):
    whole = draw_normals(11, "w", torch.arange(800), 5)
    at = torch.tensor(numbers)
    assert torch.equal(draw_normals(11, "w", at, 5), whole[at])


def test_what_is_drawn_is_standard_normal_and_differs_by_seed_and_stream():
    drawn = draw_normals(1, "w", torch.arange(20_000), 4)
    assert drawn.mean().abs() < 0.02
    assert (drawn.std() - 1).abs() < 0.02
    assert len(torch.unique(drawn[:, 0])) > 19_900
    for other in (
        draw_normals(2, "w", torch.arange(9), 4),
        draw_normals(1, "v", torch.arange(9), 4),
    ):
        assert not torch.isclose(other, drawn[:9]).any()


def test_noise_is_in_proportion_to_how_rows_spread():
    old = table(300, 4) * torch.tensor([1.0, 10.0, 100.0, 0.1])
    new = [*OLD, *letters(5_000, "n")]
    weight, account = start(old, OLD, new, init.mean() + init.noise(0.1))
    off = (weight[300:] - old.mean(0)) / (0.1 * old.std(0, correction=0))
    torch.testing.assert_close(off.std(0), torch.ones(4), atol=0.05, rtol=0)
    assert account.new_rows.answered == (("mean + noise", 5_000),)


def test_equal_rows_are_a_note_that_names_the_remedy():
    model = torch.nn.Embedding(302, 7)
    for initializer, noted in ((init.mean(), True), (init.mean() + init.noise(0.1), False)):
        vocab = tws.VocabInfo(NEW, 302, 0, OLD, backup_initializer=initializer)
        settings = tws.WarmStartSettings(
            {"weight": table(300, 7)}, var_name_to_vocab_info={"weight": vocab}
        )
        notes = list(tws.warm_start(model, settings).notes)
        assert [note.code for note in notes] == ["new-rows-equal"] * noted
        assert not noted or "init.mean(...) + init.noise(0.02)" in str(notes[0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: init.mean(of="some"), "init.mean: of is 'trained' or 'all', not 'some'"),
        (lambda: init.normal("half"), "cov is 'full' or 'diagonal'"),
        (lambda: init.normal(scale=0), "scale is a positive number, not 0"),
        (lambda: init.noise(float("nan")), "scale is a positive number, not nan"),
        (lambda: init.mean() | init.noise(0.1), "noise is added with"),
        (lambda: init.mean() + init.mean(), "not for mean: init.mean() + init.noise(0.02)"),
        (lambda: init.mean() + 0.02, "not for 0.02: init"),
        (lambda: 0.02 + init.mean(), "not for 0.02: init"),
        (lambda: init.noise(0.1) + init.mean(), "stands behind what it is added to"),
        (lambda: torch.nn.init.normal_ + init.noise(0.1), "not for normal_: init"),
        (lambda: init.noise(np.float32("nan")), "scale is a positive number, not nan"),
        (lambda: init.omp("x", np.bool_(True)), "k is a number from 1 on, not True"),
        (lambda: init.mean() | torch.nn.init.normal_, "normal_ makes whole tensors"),
        (lambda: init.omp((["a"], torch.ones(1, 1)), k=0), "k is a number from 1 on, not 0"),
        (lambda: init.similar("x", k=None), "init.similar: k is a number"),
        (lambda: init.alias("caseless"), "not 'caseless'"),
        (lambda: init.alias({}), "the mapping is empty"),
        (lambda: init.alias("bytes", num_oov_buckets=3), 'is for "oov_bucket" only'),
        (lambda: init.group_mean({}), "takes a mapping"),
        (lambda: init.subword(3), "takes the old tokenizer"),
        (lambda: init.vectors("x", align="pca"), "align is 'ridge' or 'procrustes'"),
    ],
)
def test_a_wrong_value_is_said_at_once(make, says):
    with pytest.raises(SettingsError, match="init") as error:
        make()
    assert says in str(error.value)


def test_numbers_of_numpy_are_numbers():
    assert init.noise(np.float32(0.5)) == init.noise(0.5)
    assert init.normal(scale=np.int64(2)) == init.normal(scale=2)
    assert init.omp("x", np.int64(3)) == init.omp("x", 3)
    made = init.similar("x", np.uint8(3), temperature=np.float64(1))
    assert made == init.similar("x", 3, temperature=1)
    assert type(made.k) is int
