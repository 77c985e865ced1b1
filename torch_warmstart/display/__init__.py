"""Text, pages and progress for people: tables, bars, HTML. Knows nothing of what it shows."""

from torch_warmstart.display.progress import Advance as Advance
from torch_warmstart.display.progress import progress_bar as progress_bar
from torch_warmstart.display.sheet import Entry as Entry
from torch_warmstart.display.sheet import Kind as Kind
from torch_warmstart.display.sheet import Sheet as Sheet
from torch_warmstart.display.shown import VERSION as VERSION
from torch_warmstart.display.shown import Shown as Shown
from torch_warmstart.display.tables import render as render
from torch_warmstart.display.wrapping import terminal_width as terminal_width
