"""What everything that is shown has in common: pages, rows of a data frame."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch_warmstart.errors import MissingDependencyError, SettingsError, path_of
from torch_warmstart.storage import beside

if TYPE_CHECKING:
    import pandas as pd

    from torch_warmstart.display.sheet import Sheet

# Of what `to_dict` returns and `--json` prints: grows if something goes or changes its meaning.
VERSION = 1


class Shown:
    """Something that shows itself as a table: as text, as HTML, as plain values."""

    __slots__ = ()

    @abstractmethod
    def _sheet(self) -> Sheet: ...

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values that `json.dumps` takes.

        `version` says which form this is: keys are added under the same version, and taken away or
        given another meaning under a higher one. `totals` counts.
        """

    def _records(self) -> Sequence[Mapping[str, Any]]:
        """The rows of a data frame; here the first list of mappings in `to_dict`."""
        for value in self.to_dict().values():
            if isinstance(value, list | tuple):
                return value
        return ()

    def to_dataframe(self) -> pd.DataFrame:
        """A row a variable, tensor or suggestion, as a pandas DataFrame.

        The totals and the version are in its `attrs`. Lists stay lists; the account of remapped
        rows is in columns of its own, `rows_total`, `rows_copied`, ...

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingDependencyError(
                "to_dataframe() needs pandas, which is not installed: pip install pandas"
            ) from error
        whole = self.to_dict()
        frame = pd.DataFrame(_flat(self._records()))
        frame.attrs = {name: whole[name] for name in ("version", "kind", "totals") if name in whole}
        return frame

    def to_html(self, path: str | os.PathLike[str] | None = None) -> str:
        """One page of HTML that needs nothing else: a table to sort, filter and unfold.

        Args:
            path: Where it is written to; None: nowhere. A file that is there is replaced, whole or
                not at all.

        Returns:
            The page.

        Raises:
            SettingsError: it cannot be written there.
        """
        from torch_warmstart.display.page import as_page

        page = as_page(self._sheet())
        if path is not None:
            _write(path_of("to_html: path", path), page)
        return page

    def _repr_html_(self) -> str:
        from torch_warmstart.display.page import as_fragment

        return as_fragment(self._sheet())


def _write(path: str, page: str) -> None:
    try:
        with beside(path) as written, open(written, "wb") as file:
            file.write(page.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}.") from error


def _flat(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records with the parts of mappings in them as fields of their own."""
    nested = {n for record in records for n, value in record.items() if isinstance(value, Mapping)}
    flat = []
    for record in records:
        plain = {name: value for name, value in record.items() if name not in nested}
        inner = {
            f"{name}_{part}": of for name in nested for part, of in (record[name] or {}).items()
        }
        flat.append({**plain, **inner})
    return flat
