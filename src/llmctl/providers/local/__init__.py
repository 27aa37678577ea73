"""The local target: engines, gateway and files on this machine, under ``.llmctl/<env>/``."""

from llmctl.providers.local.artifacts import contents
from llmctl.providers.local.collecting import Keep, Leftover
from llmctl.providers.local.target import LocalTarget, ProcessInfo, ProcessRole, ProcessState

__all__ = ["Keep", "Leftover", "LocalTarget", "ProcessInfo", "ProcessRole", "ProcessState", "contents"]
