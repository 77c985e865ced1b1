from .common import common_rule as common_rule
from .conventions import bare_name as bare_name
from .conventions import conventions_of as conventions_of
from .finder import BY_USER as BY_USER
from .finder import WITHOUT_MODEL as WITHOUT_MODEL
from .finder import Finder as Finder
from .finder import Source as Source
from .finder import with_layout as with_layout
