"""The local target: engines, gateway and files on this machine, under ``.llmctl/<env>/``."""

from llmctl.providers.local.target import LocalTarget, ProcessInfo, ProcessRole, ProcessState

__all__ = ["LocalTarget", "ProcessInfo", "ProcessRole", "ProcessState"]
