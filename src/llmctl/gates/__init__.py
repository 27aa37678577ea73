"""Prove a route revision on a dataset: ask every row, score the answers, judge the scores by statistics.

Importing this room is cheap: aiohttp, scipy and the metric libraries load when a gate runs.
"""

from llmctl.gates.audit import rejudge
from llmctl.gates.gate import run
from llmctl.gates.keys import evidence_key, find_cached
from llmctl.gates.metrics import METRICS, versions
from llmctl.gates.request import Failures, GateRequest, GateResult, Limits, Row, RowReport, limits_of, spec_findings
from llmctl.gates.rows import ScoredRow, read_rows
from llmctl.gates.sizes import too_small
from llmctl.gates.slices import slice_counts

__all__ = [
    "METRICS",
    "Failures",
    "GateRequest",
    "GateResult",
    "Limits",
    "Row",
    "RowReport",
    "ScoredRow",
    "evidence_key",
    "find_cached",
    "limits_of",
    "read_rows",
    "rejudge",
    "run",
    "slice_counts",
    "spec_findings",
    "too_small",
    "versions",
]
