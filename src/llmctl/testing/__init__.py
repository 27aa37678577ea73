"""What a plug-in needs to prove that its provider keeps the contract: subclass ``ProviderContract``.

Its docstring has an example. Needs pytest, which ``llmctl`` itself does not install. Imports nothing of llmctl
but ``core``.
"""

from llmctl.testing.contract import ProviderContract

__all__ = ["ProviderContract"]
