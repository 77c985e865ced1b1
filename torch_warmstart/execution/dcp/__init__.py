"""A plan carried out by torch.distributed.checkpoint, whose readers read what it asks for."""

from torch_warmstart.execution.dcp.load_planner import WarmStartLoadPlanner as WarmStartLoadPlanner
