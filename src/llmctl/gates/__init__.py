"""Prove a route revision on a dataset: ask every row, score the answers, judge the scores by statistics.

Importing this room is cheap: aiohttp, scipy and the metric libraries load when a gate runs.
"""

from llmctl.gates.audit import rejudge
from llmctl.gates.gate import run
from llmctl.gates.keys import evidence_key, find_cached
from llmctl.gates.metrics import METRICS, versions
from llmctl.gates.request import GateRequest, GateResult, Row, RowReport
from llmctl.gates.rows import ScoredRow, read_rows
from llmctl.gates.sizes import too_small

__all__ = [
    "METRICS",
    "GateRequest",
    "GateResult",
    "Row",
    "RowReport",
    "ScoredRow",
    "evidence_key",
    "find_cached",
    "read_rows",
    "rejudge",
    "run",
    "too_small",
    "versions",
]
