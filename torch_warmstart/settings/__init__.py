"""What a user asks for: frozen values, checked when they are made, and rules in a file.

Nothing here knows a model or a checkpoint.
"""

from torch_warmstart.settings.name_rules import SETTING as SETTING
from torch_warmstart.settings.name_rules import NameRules as NameRules
from torch_warmstart.settings.name_rules import Names as Names
from torch_warmstart.settings.name_rules import Pattern as Pattern
from torch_warmstart.settings.name_rules import RenameSetting as RenameSetting
from torch_warmstart.settings.name_rules import Rule as Rule
from torch_warmstart.settings.name_rules import begin_of as begin_of
from torch_warmstart.settings.name_rules import canonical_scope as canonical_scope
from torch_warmstart.settings.name_rules import is_scope as is_scope
from torch_warmstart.settings.name_rules import rules_of as rules_of
from torch_warmstart.settings.rules_file import Line as Line
from torch_warmstart.settings.rules_file import lines_of as lines_of
from torch_warmstart.settings.rules_file import load_rules as load_rules
from torch_warmstart.settings.rules_file import write_rules as write_rules
from torch_warmstart.settings.settings import ALL_ENTRIES as ALL_ENTRIES
from torch_warmstart.settings.settings import FROM_CHECKPOINT as FROM_CHECKPOINT
from torch_warmstart.settings.settings import KEEP as KEEP
from torch_warmstart.settings.settings import AnyVocabInfo as AnyVocabInfo
from torch_warmstart.settings.settings import ClipOrPad as ClipOrPad
from torch_warmstart.settings.settings import FromCheckpoint as FromCheckpoint
from torch_warmstart.settings.settings import Initializer as Initializer
from torch_warmstart.settings.settings import VocabInfo as VocabInfo
from torch_warmstart.settings.settings import VocabSource as VocabSource
from torch_warmstart.settings.settings import WarmStartSettings as WarmStartSettings
from torch_warmstart.settings.settings import takes_new_rows as takes_new_rows
from torch_warmstart.settings.settings_file import read_settings as read_settings
from torch_warmstart.settings.settings_file import write_settings as write_settings
