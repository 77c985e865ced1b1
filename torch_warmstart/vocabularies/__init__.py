"""Vocabularies as people hold them, and from two of them a remapping of rows."""

from torch_warmstart.vocabularies.loading import is_tokenizer_directory as is_tokenizer_directory
from torch_warmstart.vocabularies.loading import read_entries as read_entries
from torch_warmstart.vocabularies.loading import read_vocabulary as read_vocabulary
from torch_warmstart.vocabularies.remapping import Remapping as Remapping
from torch_warmstart.vocabularies.remapping import Vocabularies as Vocabularies
from torch_warmstart.vocabularies.remapping import count_rows as count_rows
from torch_warmstart.vocabularies.remapping import find_entries as find_entries
from torch_warmstart.vocabularies.remapping import (
    generate_vocab_remapping as generate_vocab_remapping,
)
from torch_warmstart.vocabularies.remapping import read_vocabularies as read_vocabularies
from torch_warmstart.vocabularies.remapping import remapping_between as remapping_between
from torch_warmstart.vocabularies.remapping import remapping_by_position as remapping_by_position
from torch_warmstart.vocabularies.segments import remapping_of_segments as remapping_of_segments
from torch_warmstart.vocabularies.sidecar import Sidecar as Sidecar
from torch_warmstart.vocabularies.sidecar import save_vocabularies as save_vocabularies
from torch_warmstart.vocabularies.sidecar import sidecar_vocabularies as sidecar_vocabularies
