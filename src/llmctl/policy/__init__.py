"""Judge resources, and plans as a whole, by the project's own policies, written in CEL.

``check`` finds at load what CEL itself would only find, or silently absorb, at evaluation; ``evaluate``,
``evaluate_plan`` and ``evaluate_base`` judge. Whatever goes wrong is a denial: a policy that cannot be
evaluated has not been met.
"""

from llmctl.core.policies import PolicyResult
from llmctl.policy.check import check
from llmctl.policy.evaluate import Specs, evaluate, evaluate_base, evaluate_plan
from llmctl.policy.fields import FIELDS

__all__ = ["FIELDS", "PolicyResult", "Specs", "check", "evaluate", "evaluate_base", "evaluate_plan"]
