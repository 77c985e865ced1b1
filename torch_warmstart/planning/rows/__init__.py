"""Which old row each new row takes, and who makes those that take none.

What vocabularies say of rows is read here, once; no value of a table is.
"""

from torch_warmstart.planning.rows.initialising import notes_on_new_rows as notes_on_new_rows
from torch_warmstart.planning.rows.old_vocabularies import OldVocabularies as OldVocabularies
from torch_warmstart.planning.rows.remappings import Remappings as Remappings
from torch_warmstart.planning.rows.remappings import Taken as Taken
