"""A vocabulary from day to day: updated by counts, compared.

Rows of entries that stay never move. Work goes through blocks of entries, and what is held for an
entry is some ten bytes, so that 100 million fit where their inputs do.
"""

from torch_warmstart.vocabularies.lifecycle.diff import VocabularyDiff as VocabularyDiff
from torch_warmstart.vocabularies.lifecycle.diff import diff_vocabularies as diff_vocabularies
from torch_warmstart.vocabularies.lifecycle.update import update_vocabulary as update_vocabulary
