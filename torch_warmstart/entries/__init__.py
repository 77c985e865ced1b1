"""A vocabulary as a value, and what works on millions of entries at once.

Nothing here knows where a vocabulary comes from or what it is for.
"""

from torch_warmstart.entries.entries import Entries as Entries
from torch_warmstart.entries.fingerprints import hash_buckets as hash_buckets
from torch_warmstart.entries.lookups import Lookup as Lookup
from torch_warmstart.entries.lookups import vocabularies_of as vocabularies_of
from torch_warmstart.entries.making import LOOKUPS as LOOKUPS
from torch_warmstart.entries.making import MOST_ROWS as MOST_ROWS
from torch_warmstart.entries.making import LookupLayer as LookupLayer
from torch_warmstart.entries.making import entries_of_bytes as entries_of_bytes
from torch_warmstart.entries.making import placed as placed
from torch_warmstart.entries.making import text_entries as text_entries
from torch_warmstart.entries.making import with_rows_before as with_rows_before
from torch_warmstart.entries.parallel import GRAIN as GRAIN
from torch_warmstart.entries.parallel import blocks as blocks
from torch_warmstart.entries.parallel import in_blocks as in_blocks
from torch_warmstart.entries.parallel import in_threads as in_threads
from torch_warmstart.entries.usage import UNKNOWN as UNKNOWN
from torch_warmstart.entries.usage import Usage as Usage
from torch_warmstart.entries.vocabulary import FILE_KIND as FILE_KIND
from torch_warmstart.entries.vocabulary import FILE_VERSION as FILE_VERSION
from torch_warmstart.entries.vocabulary import MASK as MASK
from torch_warmstart.entries.vocabulary import OOV as OOV
from torch_warmstart.entries.vocabulary import PADDING as PADDING
from torch_warmstart.entries.vocabulary import Vocabulary as Vocabulary
from torch_warmstart.entries.vocabulary import worked_by as worked_by
from torch_warmstart.entries.words import WIDEST as WIDEST
from torch_warmstart.entries.words import WORD as WORD
from torch_warmstart.entries.words import drop_behind as drop_behind
from torch_warmstart.entries.words import load_words as load_words
from torch_warmstart.entries.words import new_words as new_words
from torch_warmstart.entries.words import positions as positions
from torch_warmstart.entries.words import words_for as words_for
