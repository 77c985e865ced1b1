from .suggest import suggest_for_model as suggest_for_model
from .suggest import with_proposals as with_proposals
from .suggestions import CONFIDENCES as CONFIDENCES
from .suggestions import WRITTEN as WRITTEN
from .suggestions import SuggestedRule as SuggestedRule
from .suggestions import Suggestion as Suggestion
from .suggestions import Suggestions as Suggestions
from .suggestions import save_rules as save_rules
