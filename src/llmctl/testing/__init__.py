"""What a plug-in needs to prove that its provider keeps the contract: subclass ``ProviderContract``.

    class TestMyProvider(ProviderContract):
        @pytest.fixture
        def provider(self) -> Provider[Json]: ...
        @pytest.fixture
        def key(self) -> Key: ...          # name@revision
        ...

Needs pytest. Imports nothing of llmctl but ``core``.
"""

from llmctl.testing.contract import ProviderContract

__all__ = ["ProviderContract"]
