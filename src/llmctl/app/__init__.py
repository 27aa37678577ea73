"""App: one function a use case. The only room that wires the others together.

Each module is one use case and imports what it needs, so that a command loads only its own.
"""
