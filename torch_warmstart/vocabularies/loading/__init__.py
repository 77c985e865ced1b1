"""From what people hold vocabularies in to a `Vocabulary`, one module for each kind of source.

Content is looked at before it is believed: what is not what its form says is one sentence that
names what it is and what to write, never entries. Libraries are not imported for their objects.
"""

from torch_warmstart.vocabularies.loading.arrow import exports_arrow as exports_arrow
from torch_warmstart.vocabularies.loading.arrow import from_arrow as from_arrow
from torch_warmstart.vocabularies.loading.lines import check_lines as check_lines
from torch_warmstart.vocabularies.loading.lines import check_no_blanks as check_no_blanks
from torch_warmstart.vocabularies.loading.source import read_entries as read_entries
from torch_warmstart.vocabularies.loading.source import read_vocabulary as read_vocabulary
from torch_warmstart.vocabularies.loading.source import used_rows as used_rows
from torch_warmstart.vocabularies.loading.tokenizer_files import (
    is_tokenizer_directory as is_tokenizer_directory,
)
