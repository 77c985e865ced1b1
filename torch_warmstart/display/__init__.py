"""Text, pages and progress for people: tables, bars, HTML. Knows nothing of what it shows."""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
