"""What is done to a seed: random damage to its bytes, and lies told in its own language.

The lies keep what surrounds them honest. A mutated table gets new checksums, a mutated zip member a
new directory, so that a reader meets the lie and not just the checksum in front of it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from random import Random

from fuzz.cases import Case
from fuzz.damage import Mutator, damage_file, drop_file, splice
from fuzz.lies import (
    lie_in_header,
    lie_in_json_file,
    lie_in_npy,
    lie_in_pickle_file,
    lie_in_text,
    lie_in_zip,
)
from fuzz.listing_lies import lie_in_framed, lie_in_listing
from fuzz.names import lie_in_names
from fuzz.tensorflow_lies import (
    lie_in_block,
    lie_in_record,
    lie_in_state,
    lie_in_strings,
    shuffle_records,
)

# ---- All of them -----------------------------------------------------------------------------

MUTATORS: tuple[Mutator, ...] = (
    damage_file,
    splice,
    drop_file,
    lie_in_record,
    shuffle_records,
    lie_in_block,
    lie_in_strings,
    lie_in_state,
    lie_in_header,
    lie_in_json_file,
    lie_in_zip,
    lie_in_pickle_file,
    lie_in_npy,
    lie_in_text,
    lie_in_names,
    lie_in_listing,
    lie_in_framed,
)
_RARE = {splice, drop_file}


def mutate(rng: Random, case: Case, others: Sequence[Case]) -> Case:
    """One mutation of a seed."""
    weights = [1 if mutator in _RARE else 4 for mutator in MUTATORS]
    while True:
        mutator = rng.choices(MUTATORS, weights)[0]
        try:
            mutated = mutator(rng, case, others)
        except (ValueError, IndexError, zipfile.BadZipFile, zlib.error, RecursionError):
            continue  # what could not be read could not be changed
        if mutated is not None:
            return mutated
