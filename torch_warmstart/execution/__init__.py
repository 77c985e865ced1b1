"""A plan carried out: checked, prepared, written, accounted for. Nothing is decided here."""

from torch_warmstart.execution.execute import execute_plan as execute_plan
from torch_warmstart.execution.gathering import gather_rows as gather_rows
from torch_warmstart.execution.ranks import agreement_on as agreement_on
from torch_warmstart.execution.report import VariableAccount as VariableAccount
from torch_warmstart.execution.report import WarmStartReport as WarmStartReport
