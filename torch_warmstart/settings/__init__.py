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
from torch_warmstart.settings.settings import WarmStartSettings as WarmStartSettings
from torch_warmstart.settings.settings_file import read_settings as read_settings
from torch_warmstart.settings.settings_file import write_settings as write_settings
from torch_warmstart.settings.vocab_infos import ALL_ENTRIES as ALL_ENTRIES
from torch_warmstart.settings.vocab_infos import FROM_CHECKPOINT as FROM_CHECKPOINT
from torch_warmstart.settings.vocab_infos import INFO_TYPES as INFO_TYPES
from torch_warmstart.settings.vocab_infos import KEEP as KEEP
from torch_warmstart.settings.vocab_infos import AnyVocabInfo as AnyVocabInfo
from torch_warmstart.settings.vocab_infos import ClipOrPad as ClipOrPad
from torch_warmstart.settings.vocab_infos import FromCheckpoint as FromCheckpoint
from torch_warmstart.settings.vocab_infos import Infos as Infos
from torch_warmstart.settings.vocab_infos import Initializer as Initializer
from torch_warmstart.settings.vocab_infos import SegmentInfo as SegmentInfo
from torch_warmstart.settings.vocab_infos import VocabInfo as VocabInfo
from torch_warmstart.settings.vocab_infos import VocabSource as VocabSource
from torch_warmstart.settings.vocab_infos import check_infos as check_infos
from torch_warmstart.settings.vocab_infos import infos_of as infos_of
from torch_warmstart.settings.vocab_infos import takes_new_rows as takes_new_rows
from torch_warmstart.settings.vocab_infos import what_infos_are as what_infos_are
