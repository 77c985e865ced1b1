"""Columns of features that lie one after the other: from where they began to where they begin."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

import torch

from torch_warmstart.errors import VocabularyError, plural
from torch_warmstart.settings import SegmentInfo, VocabInfo, too_few_found
from torch_warmstart.vocabularies.entry_index import MISSING
from torch_warmstart.vocabularies.remapping import Remapping, may_be_height


def remapping_of_segments(
    info: SegmentInfo,
    segments: Mapping[str, int | Remapping],
    old_size: int,
    device: torch.device,
) -> Remapping:
    """Which old column each new one is.

    Args:
        info: Which features there are and were.
        segments: Of each new one how many columns it has; or the remapping of its vocabularies.
        old_size: How many columns the old variable has.
        device: Where the result is.

    Raises VocabularyError: the old features have another number of columns together, or one of them
    than its old vocabulary stands for; or one is not found that would be if case were ignored.
    """
    _check_case(info)
    starts = _starts(info.old_segments, old_size)
    parts = [
        _columns(info, name, segment, starts.get(name)).to(device)
        for name, segment in segments.items()
    ]
    read = [part for part in segments.values() if isinstance(part, Remapping)]
    rows = torch.cat(parts)
    found = int((rows >= 0).sum())
    return Remapping(
        rows=rows,
        num_present=found,
        num_new=len(rows) - found,
        num_oov=0,
        num_oov_copied=0,
        num_dropped=old_size - len(torch.unique(rows[rows >= 0])),
        num_old=old_size,
        old_rows=old_size,
        num_reused=int((rows[:old_size] < 0).sum()),
        other_reading=_hardly_found(segments),
        other_encoding=next((part.other_encoding for part in read if part.other_encoding), ""),
        header=next((part.header for part in read if part.header), ""),
        new_entries=" ".join(part.new_entries for part in read),
        segments=tuple(
            (name, part.num_present, part.num_entries)
            for name, part in segments.items()
            if isinstance(part, Remapping)
        ),
    )


def _check_case(info: SegmentInfo) -> None:
    """A feature that has gone and one that has come, of one name but for case, are one."""
    gone = {n.casefold(): n for n in info.old_segments if n not in info.new_segments}
    came = [name for name in info.new_segments if name not in info.old_segments]
    alike = next((name for name in came if name.casefold() in gone), None)
    if alike is not None:
        raise VocabularyError(
            f"The feature {alike!r} of new_segments is not in old_segments, and would be "
            f"{gone[alike.casefold()]!r} if case were ignored. Write both alike; or if it is "
            "another feature, give it another name."
        )


def _hardly_found(segments: Mapping[str, int | Remapping]) -> str:
    """Of which features hardly an entry is found; "": of none."""
    said = [
        f"{name!r} {part.num_present:,} of {plural(part.num_entries, 'entry')}"
        for name, part in segments.items()
        if isinstance(part, Remapping) and part.finds_little
    ]
    return f"In the old vocabularies are of {' and of '.join(said)}." if said else ""


def _starts(widths: Mapping[str, int], old_size: int) -> dict[str, int]:
    """Where each old feature begins."""
    ends = list(accumulate(widths.values()))
    if ends[-1] != old_size:
        raise VocabularyError(
            f"old_segments has {plural(len(widths), 'feature')} of together {ends[-1]:,} columns, "
            f"and the old variable has {old_size:,}. Is a feature missing, or its width "
            "another?"
        )
    return dict(zip(widths, [0, *ends], strict=False))


def _columns(
    info: SegmentInfo, name: str, segment: int | Remapping, start: int | None
) -> torch.Tensor:
    """The old columns of a feature, or -1."""
    if start is None:
        assert isinstance(segment, int)
        return torch.full((segment,), MISSING, dtype=torch.int64)
    if isinstance(segment, int):
        return torch.arange(start, start + segment)
    inner, width = info.new_segments[name], info.old_segments[name]
    assert isinstance(inner, VocabInfo)
    _check_part(name, inner, segment, width)
    return torch.where(segment.rows < 0, MISSING, segment.rows + start)


def _check_part(name: str, inner: VocabInfo, segment: Remapping, width: int) -> None:
    extra = width - segment.num_old
    is_padding = segment.is_old_padded and may_be_height(segment.num_old, width)
    are_said = inner.old_num_oov_buckets is not None or is_padding
    is_short = segment.leaves_oov_unclear(width)
    if extra < 0 or (extra and not are_said) or is_short:
        advice = "Do they belong together?"
        if extra > 0 and not are_said:
            last = "the last one is" if extra == 1 else "the last ones are"
            advice = (
                f"If {last} for what is not listed, write old_num_oov_buckets={extra} in its "
                "VocabInfo; 0 leaves them behind."
            )
        raise VocabularyError(
            f"The old vocabulary of the feature {name!r} has {plural(segment.num_old, 'row')}, "
            f"and old_segments gives it {plural(width, 'column')}. {advice}"
        )
    found, entries = segment.num_present, segment.num_entries
    problem = too_few_found(found, entries, inner.min_found, "are in its old vocabulary")
    if problem:
        advice = segment.other_reading or "Is its old_vocab the right one?"
        raise VocabularyError(f"The feature {name!r}: {problem} {advice}")
