from .execute import execute_plan as execute_plan
from .gathering import gather_rows as gather_rows
from .ranks import agreement_on as agreement_on
from .report import VariableAccount as VariableAccount
from .report import WarmStartReport as WarmStartReport
