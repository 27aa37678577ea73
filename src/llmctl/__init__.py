"""llmctl: plan and apply for a whole LLM application.

The rooms of this package and the order in which they may import each other are described in
``docs/architecture.md``; ``lint-imports`` enforces that order.
"""

__version__ = "0.1.0"
