"""Judge resources by the project's own policies, written in CEL.

``check`` finds at load what CEL itself would only find, or silently absorb, at evaluation; ``evaluate``
judges. Whatever goes wrong is a denial: a policy that cannot be evaluated has not been met.
"""

from llmctl.core.policies import PolicyResult
from llmctl.policy.check import check
from llmctl.policy.evaluate import evaluate
from llmctl.policy.fields import FIELDS

__all__ = ["FIELDS", "PolicyResult", "check", "evaluate"]
