from .initialising import notes_on_new_rows as notes_on_new_rows
from .old_vocabularies import OldVocabularies as OldVocabularies
from .parts import why_not_by_position as why_not_by_position
from .remappings import Remappings as Remappings
from .remappings import Taken as Taken
from .remappings import new_padding_rows as new_padding_rows
from .remappings import padding_rows_of as padding_rows_of
