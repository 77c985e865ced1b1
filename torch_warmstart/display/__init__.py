"""Text and progress for people: aligned tables, progress bars. Knows nothing of what it shows."""

from torch_warmstart.display.progress import Advance as Advance
from torch_warmstart.display.progress import progress_bar as progress_bar
from torch_warmstart.display.tables import fold as fold
from torch_warmstart.display.tables import fold_endings as fold_endings
from torch_warmstart.display.tables import render as render
from torch_warmstart.display.tables import shorten as shorten
from torch_warmstart.display.tables import shorten_apart as shorten_apart
