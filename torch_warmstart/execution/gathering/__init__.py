"""The hot path: rows from where they are to where they belong, on whatever device. No plan here."""

from torch_warmstart.execution.gathering.cells import Rows as Rows
from torch_warmstart.execution.gathering.cells import fill_cells as fill_cells
from torch_warmstart.execution.gathering.cells import gather_cells as gather_cells
from torch_warmstart.execution.gathering.gather import CHUNK_BYTES as CHUNK_BYTES
from torch_warmstart.execution.gathering.gather import fill_rows as fill_rows
from torch_warmstart.execution.gathering.gather import gather_blocks as gather_blocks
from torch_warmstart.execution.gathering.gather import gather_rows as gather_rows
from torch_warmstart.execution.gathering.guarded import copy_guarded as copy_guarded
from torch_warmstart.execution.gathering.guarded import duplicate as duplicate
from torch_warmstart.execution.gathering.guarded import gather_guarded as gather_guarded
