"""Settings, model and checkpoint become a plan, or every problem at once. No tensor is read."""

from torch_warmstart.planning.assignment import AssignmentMap as AssignmentMap
from torch_warmstart.planning.assignment import plan_assignment as plan_assignment
from torch_warmstart.planning.assignment import read_map as read_map
from torch_warmstart.planning.checks import is_made_by_module as is_made_by_module
from torch_warmstart.planning.checks import left_on_meta as left_on_meta
from torch_warmstart.planning.plan import ASIDE as ASIDE
from torch_warmstart.planning.plan import NEVER_TAKEN as NEVER_TAKEN
from torch_warmstart.planning.plan import NO_ROWS as NO_ROWS
from torch_warmstart.planning.plan import NOT_SELECTED as NOT_SELECTED
from torch_warmstart.planning.plan import SHARES_MEMORY as SHARES_MEMORY
from torch_warmstart.planning.plan import Audit as Audit
from torch_warmstart.planning.plan import AxisChange as AxisChange
from torch_warmstart.planning.plan import PlanItem as PlanItem
from torch_warmstart.planning.plan import RowAccount as RowAccount
from torch_warmstart.planning.plan import State as State
from torch_warmstart.planning.plan import WarmStartPlan as WarmStartPlan
from torch_warmstart.planning.plan import count_states as count_states
from torch_warmstart.planning.plan import entry as entry
from torch_warmstart.planning.plan import remarks as remarks
from torch_warmstart.planning.plan import totals_of as totals_of
from torch_warmstart.planning.planner import make_plan as make_plan
from torch_warmstart.planning.renames import read_renames as read_renames
from torch_warmstart.planning.selection import by_variable as by_variable
from torch_warmstart.planning.selection import select as select
from torch_warmstart.planning.selection import written_out as written_out
