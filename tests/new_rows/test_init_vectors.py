"""similar, omp and vectors: planted truths are found again, and closed forms hold."""

from __future__ import annotations

import pytest
import torch
from rows_helpers import letters, start, table

import torch_warmstart as tws
from torch_warmstart import init
from torch_warmstart.new_rows.initializers import pursuit, similar
from torch_warmstart.new_rows.initializers.pursuit import pursue
from torch_warmstart.new_rows.initializers.similar import sparsemax

OLD, NEW = letters(200), [*letters(200), *letters(50, "n")]


def _unit(rows):
    return torch.nn.functional.normalize(rows, dim=1)


# -- similar ---------------------------------------------------------------------------------------


def test_a_vector_that_an_old_entry_has_gives_that_row():
    values, vectors = table(200, 6), table(250, 16, 1)
    vectors[200:] = 3 * vectors[50:100]  # a cosine does not see how long a vector is
    weight, _ = start(values, OLD, NEW, init.similar((NEW, vectors), temperature=1e-3))
    torch.testing.assert_close(weight[200:], values[50:100])


@pytest.mark.parametrize("budget", [1, 64 << 20])
def test_the_nearest_are_weighted_by_their_softmax(monkeypatch, budget):
    monkeypatch.setattr(similar, "BUDGET", budget)
    values, vectors = table(200, 6), table(250, 16, 1)
    weight, account = start(values, OLD, NEW, init.similar((NEW, vectors), k=5, temperature=0.2))
    cosines = _unit(vectors[200:]) @ _unit(vectors[:200]).T
    top, near = cosines.topk(5, dim=1)
    dense = torch.zeros_like(cosines).scatter_(1, near, torch.softmax(top / 0.2, 1))
    torch.testing.assert_close(weight[200:], dense @ values, rtol=1e-4, atol=1e-5)
    assert account.new_rows.answered == (("similar", 50),)


def test_that_no_entry_is_shared_is_said_where_these_are_asked_for():
    focus = init.similar((NEW, table(250, 4, 1)), anchors="shared")
    with pytest.raises(tws.SettingsError, match="none of the old entries has a vector and a new"):
        start(table(200, 6), OLD, letters(50, "n"), focus)


def test_focus_is_the_sparsemax_of_all_shared_entries():
    values, vectors = table(200, 6), table(250, 4, 1)
    kept = [*OLD[:150], *letters(50, "n")]
    focus = init.similar(
        (NEW, vectors), k=None, weights="sparsemax", temperature=1.0, anchors="shared"
    )
    weight, _ = start(values, OLD, kept, focus)
    cosines = _unit(vectors[200:]) @ _unit(vectors[:150]).T
    wanted = torch.stack([_by_bisection(row) for row in cosines])
    torch.testing.assert_close(weight[150:], wanted @ values[:150], rtol=1e-3, atol=1e-4)


def _by_bisection(scores):
    """Sparsemax: the threshold by halving an interval."""
    low, high = scores.min() - 1, scores.max()
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (scores - middle).clamp(min=0).sum() > 1 else (low, middle)
    return (scores - low).clamp(min=0)


def test_sparsemax_in_closed_form():
    scores = torch.tensor([[1.0, 0.8, 0.1], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    wanted = torch.tensor([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    torch.testing.assert_close(sparsemax(scores), wanted.double())


def test_clp_weighs_all_shared_entries_by_their_cosines():
    values, vectors = table(200, 6), table(250, 16, 1).abs()
    clp = init.similar((NEW, vectors), k=None, weights="proportional", anchors="shared")
    weight, _ = start(values, OLD, NEW, clp)
    cosines = _unit(vectors[200:]) @ _unit(vectors[:200]).T
    wanted = cosines / cosines.sum(1, keepdim=True) @ values
    torch.testing.assert_close(weight[200:], wanted, rtol=1e-4, atol=1e-5)


def test_the_order_of_the_old_table_does_not_matter():
    values, vectors = table(200, 6), table(250, 16, 1)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    initializer = init.similar((NEW, vectors))
    here, _ = start(values, OLD, NEW, initializer)
    there, _ = start(values[order], [OLD[at] for at in order], NEW, initializer)
    torch.testing.assert_close(here, there)


def test_each_side_may_have_vectors_of_its_own_and_zeros_are_like_nothing():
    values, vectors = table(200, 6), table(250, 16, 1)
    mine = vectors[200:].clone()
    mine[3] = 0
    given = init.similar((NEW[200:], mine), old_vectors=(OLD, vectors[:200])) | init.mean()
    weight, account = start(values, OLD, NEW, given)
    whole, _ = start(values, OLD, NEW, init.similar((NEW, vectors)))
    torch.testing.assert_close(weight[204:], whole[204:])
    torch.testing.assert_close(weight[203], values.mean(0))
    assert account.new_rows.answered == (("similar", 49), ("mean", 1))


def test_untrained_rows_are_no_anchors():
    values, vectors = table(200, 6), table(250, 16, 1)
    values[7] = 0
    vectors[200] = vectors[7]
    weight, _ = start(values, OLD, NEW, init.similar((NEW, vectors), k=1))
    assert weight[200].abs().max() > 0
    weight, _ = start(values, OLD, NEW, init.similar((NEW, vectors), k=1, of="all"))
    assert not weight[200].any()


def test_vectors_come_from_files_too(tmp_path):
    values, vectors = table(200, 6), table(250, 16, 1)
    lines = [
        " ".join([entry, *map(repr, row)]) for entry, row in zip(NEW, vectors.tolist(), strict=True)
    ]
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join(lines) + "\n")
    torch.save({"donor.weight": vectors}, tmp_path / "donor.pt")
    wanted, _ = start(values, OLD, NEW, init.similar((NEW, vectors)))
    for source in (path, (NEW, (str(tmp_path / "donor.pt"), "donor.weight"))):
        weight, _ = start(values, OLD, NEW, init.similar(source))
        torch.testing.assert_close(weight, wanted)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ((["a"], torch.ones(3)), "a table of vectors is a matrix"),
        ((["a", "b"], torch.ones(1, 3)), "do not belong together"),
        ((["zz"], torch.ones(1, 3)), "none of the old entries has a vector"),
        (7, "A table from outside is a file of vectors, or"),
        ((["a"], 7), "its second part is a int"),
    ],
)
def test_a_table_that_is_none_is_said(source, says):
    new = ["a", "b", "x", "zz"]
    with pytest.raises(tws.WarmStartError, match=says):
        start(table(2, 3), ["a", "b"], new, init.similar(source))


# -- omp -------------------------------------------------------------------------------------------


def _planted(k, width=24, norms=None):
    """Targets that are mixtures of `k` atoms, the atoms' rows and the mixtures."""
    generator = torch.Generator().manual_seed(2)
    atoms = torch.randn(200, width, generator=generator)
    if norms is not None:
        atoms = atoms * norms[:, None]
    truth = torch.zeros(50, 200)
    for row in truth:
        at = torch.randperm(200, generator=generator)[:k]
        row[at] = (torch.rand(k, generator=generator) + 0.5) * torch.tensor([1.0, -1.0]).repeat(k)[
            :k
        ]
    return truth @ atoms, atoms, truth


@pytest.mark.parametrize("spread", [None, torch.logspace(-2, 2, 200)])
def test_a_planted_mixture_is_found_whatever_the_atoms_lengths(spread):
    targets, atoms, truth = _planted(3, 64, spread)
    if spread is not None:  # so that each atom counts alike
        truth = truth / spread
        targets = truth @ atoms
    values = table(200, 6)
    donor = (NEW, torch.cat([atoms, targets]))
    weight, _ = start(values, OLD, NEW, init.omp(donor, k=8))
    torch.testing.assert_close(weight[200:], truth @ values, rtol=1e-3, atol=1e-3)


def test_factors_are_least_squares_on_what_was_chosen_and_what_is_left_shrinks():
    targets, atoms = table(30, 16, 3), _unit(table(100, 16, 4))
    before = torch.linalg.vector_norm(targets, dim=1)
    for k in (1, 4, 9):
        chosen, factors = pursue(targets, atoms, k)
        left = []
        for target, at, factor in zip(targets, chosen, factors, strict=True):
            fit = torch.linalg.lstsq(atoms[at].double().T, target.double()).solution
            torch.testing.assert_close(factor, fit)
            left.append(torch.linalg.vector_norm(target - atoms[at].T @ factor.float()))
        assert (torch.stack(left) <= before).all()
        before = torch.stack(left)


def test_all_at_once_is_one_by_one(monkeypatch):
    values, rows = table(200, 6), table(250, 24, 5)
    together, _ = start(values, OLD, NEW, init.omp((NEW, rows), k=6))
    monkeypatch.setattr(pursuit, "_BUDGET", 1)
    alone, _ = start(values, OLD, NEW, init.omp((NEW, rows), k=6))
    torch.testing.assert_close(together, alone)


def test_it_stops_where_nothing_is_left_and_an_atom_twice_does_no_harm():
    targets, atoms, _truth = _planted(2, 64)
    atoms = torch.cat([atoms, atoms[:100]])
    chosen, factors = pursue(targets, _unit(atoms), 40)
    assert ((chosen >= 0).sum(1) == 2).all()
    assert factors.abs().max() < 100
    more, _ = pursue(table(3, 4, 6), _unit(table(50, 4, 7)), 30)  # of four numbers
    assert ((more >= 0).sum(1) <= 5).all()
    nothing, factors = pursue(torch.zeros(2, 4), _unit(table(50, 4, 7)), 3)
    assert (nothing == -1).all()
    assert not factors.any()


def test_a_donor_answers_for_what_it_has_and_head_and_bias_follow():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(250, 6)
            self.head = torch.nn.Linear(6, 250)

    old = {
        "embed.weight": table(200, 6),
        "head.weight": table(200, 6, 8),
        "head.bias": table(200, 1, 9)[:, 0],
    }
    rows = table(245, 24, 5)
    info = tws.VocabInfo(NEW, 250, 0, OLD, backup_initializer=init.omp((NEW[:245], rows), k=5))
    settings = tws.WarmStartSettings(
        old, var_name_to_vocab_info={"embed.weight": info, "head": info}
    )
    model = Model()
    report = tws.warm_start(model, settings)
    chosen, factors = pursue(rows[200:], _unit(rows[:200]), 5)
    truth = torch.zeros(45, 200).scatter_(
        1, chosen, (factors / rows[:200].norm(dim=1)[chosen]).float()
    )
    for name, values in old.items():
        made = dict(model.named_parameters())[name].detach()[200:245]
        torch.testing.assert_close(made, truth @ values, rtol=1e-4, atol=1e-4)
        assert report[name].new_rows.answered == (("omp", 45), ("zeros", 5))
    (note, *others) = [n for n in report.notes if n.code == "new-rows-unanswered"]
    assert "no initialiser answers for 5 new rows, which begin as zeros" in str(note)
    assert len(others) == 2


# -- vectors ---------------------------------------------------------------------------------------


def _rotation(width, seed):
    return torch.linalg.qr(table(width, width, seed)).Q


def test_a_planted_rotation_is_found_through_noise():
    rows = table(250, 12, 1)
    truth = 2.5 * rows @ _rotation(12, 2)
    noise = 0.1 * truth.std() * table(250, 12, 3)
    for align in ("procrustes", "ridge"):
        made, account = start(truth[:200] + noise[:200], OLD, NEW, init.vectors((NEW, rows), align))
        error = (made[200:] - truth[200:]).norm() / truth[200:].norm()
        assert error < 0.05  # a tenth of noise goes in
        assert account.new_rows.answered == (("vectors", 50),)


@pytest.mark.parametrize("width", [12, 40])
def test_a_planted_linear_mapping_is_found_with_its_offset(width):
    rows = table(250, width, 1)
    truth = rows @ table(width, 8, 2) + 5
    made, _ = start(truth[:200], OLD, NEW, init.vectors((NEW, rows), ridge=1e-9))
    torch.testing.assert_close(made[200:], truth[200:], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("widths", [(6, 10), (10, 6)])
def test_unequal_widths_have_an_isometry_too(widths):
    rows = table(250, widths[0], 1)
    large = _rotation(10, 2)
    isometry = large[: widths[0], : widths[1]] if widths[0] < widths[1] else large[:, : widths[1]]
    truth = rows @ isometry
    made, _ = start(truth[:200], OLD, NEW, init.vectors((NEW, rows), "procrustes"))
    error = (made[200:] - truth[200:]).norm() / truth[200:].norm()
    assert error < (1e-4 if widths[0] < widths[1] else 0.3)


def test_as_they_are_they_must_be_of_the_table_s_width():
    rows = table(250, 6, 1)
    made, _ = start(table(200, 6), OLD, NEW, init.vectors((NEW, rows), None))
    assert torch.equal(made[200:], rows[200:])
    with pytest.raises(tws.PlanError, match='6 numbers and init.vectors. 7: align="ridge" maps'):
        start(table(200, 6), OLD, NEW, init.vectors((NEW, table(250, 7)), None))


def test_float64_stays_float64():
    values = table(200, 6).double() / 3
    made, _ = start(values, OLD, NEW, init.alias({"n0": "t3"}) | init.mean())
    assert made.dtype == torch.float64
    assert torch.equal(made[200], values[3])
    torch.testing.assert_close(made[201], values.mean(0), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(
    "of",
    [
        lambda vectors: init.similar((NEW, vectors), k=1),
        lambda vectors: init.omp((NEW, vectors), k=1),
    ],
    ids=["similar", "omp"],
)
def test_vectors_in_float64_are_compared_in_float64(of):
    vectors = 1 + 1e-5 * table(250, 8, 1, torch.float64)  # cosines of float32 are as good as alike
    vectors[200:] = vectors[50:100]
    values = table(200, 6, dtype=torch.float64)
    weight, _ = start(values, OLD, NEW, of(vectors))
    torch.testing.assert_close(weight[200:], values[50:100], rtol=1e-6, atol=1e-6)
