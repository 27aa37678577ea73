"""Providers: where resources run. One package per target; each implements ``core.protocols.Target``."""
