"""The exceptions and the warning, as values that code can look at."""

from __future__ import annotations

import pickle
import warnings

import pytest

import torch_warmstart as tws


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
