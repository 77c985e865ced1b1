"""The exceptions and the warning, as values that code can look at."""

from __future__ import annotations

import pickle
import warnings

import pytest

import torch_warmstart as tws
from torch_warmstart.errors import did_you_mean


def test_a_partial_write_says_what_is_written_and_what_is_not():
    error = tws.PartialWriteError("the server is gone", ["a.weight"], ["b.weight", "c"])
    assert isinstance(error, tws.WarmStartError)
    assert str(error) == "the server is gone"
    assert (error.written, error.not_written) == (("a.weight",), ("b.weight", "c"))
    again = pickle.loads(pickle.dumps(error))  # as it travels between processes
    assert str(again) == str(error)
    assert (again.written, again.not_written) == (error.written, error.not_written)


def test_the_warning_is_a_user_warning_of_its_own():
    assert issubclass(tws.WarmStartWarning, UserWarning)
    with pytest.warns(tws.WarmStartWarning, match="everything is kept"):
        warnings.warn("everything is kept", tws.WarmStartWarning, stacklevel=1)


def _problem(subject: str, text: str, code: str = "not-in-checkpoint") -> tws.Finding:
    return tws.Finding(code, "error", subject, text, "Name its key.")


def test_what_is_said_of_several_alike_shares_a_line_and_a_hint():
    names = [f"v{number}" for number in range(9)]
    problems = [_problem(name, f"{name} is not there.") for name in names]
    error = tws.PlanError("Two kinds:", [*problems, _problem("w", "w is another.")])
    assert str(error) == (
        "Two kinds:\n"
        "  1. v0 is not there. The same of v1, v2, v3, v4, v5 and 3 more.\n"
        "  2. w is another.\n"
        "Name its key."
    )
    assert len(error.problems) == 10


def test_equal_texts_are_one_problem_and_other_codes_are_another():
    twice = [_problem("a", "a is wrong."), _problem("a", "a is wrong.")]
    other = _problem("b", "b is wrong.", "other-code")
    error = tws.PlanError("Problems:", [*twice, other])
    assert str(error) == "Problems:\n  1. a is wrong.\n  2. b is wrong.\nName its key."
    assert error.problems == (twice[0], other)


def test_a_near_name_is_told_once_however_many_have_it():
    assert did_you_mean("fc1.weight", ["fc.weight", "fc.weight"]) == " Did you mean 'fc.weight'?"
