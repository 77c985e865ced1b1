"""From what people hold vocabularies in to a `Vocabulary`, one module for each kind of source.

Content is looked at before it is believed: what is not what its form says is one sentence that
names what it is and what to write, never entries. Libraries are not imported for their objects.
"""

from torch_warmstart import on_demand

__getattr__ = on_demand(__name__)
