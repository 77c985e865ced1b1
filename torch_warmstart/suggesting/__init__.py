"""Names proposed for what a plan would not find.

`tensors` may be proposed, `candidates` are where a layer could be, `suggest` chooses between them,
`rules` stand for many suggestions. A proposal changes nothing: the user's rules do.
"""

from torch_warmstart.suggesting.suggest import suggest_for_model as suggest_for_model
from torch_warmstart.suggesting.suggest import with_proposals as with_proposals
from torch_warmstart.suggesting.suggestions import SuggestedRule as SuggestedRule
from torch_warmstart.suggesting.suggestions import Suggestion as Suggestion
from torch_warmstart.suggesting.suggestions import Suggestions as Suggestions
from torch_warmstart.suggesting.suggestions import save_rules as save_rules
