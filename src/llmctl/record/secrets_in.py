"""Values that look like secrets, told by the forms that their makers gave them.

The forms are those of detect-secrets 1.5 (Yelp) and of the makers' own documentation. detect-secrets itself takes
0.4 ms for each line, four minutes for a record of 10,000 commits; here a file in which no form begins costs 30 µs.
What has no form of its own, such as a password alone, is not found: it is kept out by ``{secret: NAME}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_START = rb"(?<![A-Za-z0-9_-])"
_END = rb"(?![A-Za-z0-9_-])"

_FORMS = (
    ("a private key", rb"-----BEGIN (?:[A-Z0-9]+ ){0,4}PRIVATE KEY(?: BLOCK)?-----"),
    ("a PuTTY private key", rb"PuTTY-User-Key-File-[0-9]"),
    ("an AWS access key", _START + rb"A[KS]IA[0-9A-Z]{16}" + _END),
    ("a GitHub token", _START + rb"gh[pousr]_[A-Za-z0-9]{36}"),
    ("a GitHub token", _START + rb"github_pat_[A-Za-z0-9_]{22}"),
    (
        "a GitLab token",
        _START + rb"gl(?:pat|dt|rt|cbt|ptt|soat)-[A-Za-z0-9_-]{20}",
    ),
    ("an Anthropic key", _START + rb"sk-ant-[A-Za-z0-9_-]{20}"),
    ("an OpenAI key", _START + rb"sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20}|[A-Za-z0-9]{32})"),
    ("a Slack token", _START + rb"xox[abeoprs]-[A-Za-z0-9-]{10}"),
    ("a Slack webhook", rb"hooks\.slack\.com/services/T\w+/B\w+/\w"),
    ("a Google API key", _START + rb"AIza[A-Za-z0-9_-]{35}" + _END),
    ("a Google OAuth secret", _START + rb"GOCSPX-[A-Za-z0-9_-]{28}" + _END),
    ("a JSON web token", _START + rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10}"),
    ("a Hugging Face token", _START + rb"hf_[A-Za-z0-9]{34}"),
    ("a Stripe key", _START + rb"[rs]k_live_[A-Za-z0-9]{20}"),
    ("an npm token", _START + rb"npm_[A-Za-z0-9]{36}" + _END),
    ("a PyPI token", _START + rb"pypi-AgEI[A-Za-z0-9_-]{50}"),
    ("an age key", rb"AGE-SECRET-KEY-1[0-9A-Z]{20}"),
    # Not what only stands for one: ***, <password>, ${PASSWORD}, {{ password }}, xxx.
    ("a password in a URL", rb"://[^\s:/@\"'\\<>]{0,200}:(?![*<${]|x+@)[^\s/@\"'\\<>]{1,500}@[^\s@]"),
)
_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in _FORMS)
#: How they begin, or what stands in them: most files have none of it, and need no second look.
_ANY = re.compile(
    rb"PRIVATE KEY|PuTTY-User-Key|A[KS]IA[0-9A-Z]|gh[pousr]_|github_pat_|gl[a-z]{2,4}-|sk-|xox[a-z]-|hooks\.slack"
    rb"|AIza|GOCSPX-|eyJ|hf_|k_live_|npm_|pypi-|AGE-SECRET|://"
)


def secrets_in(data: bytes) -> Iterator[tuple[str, int]]:
    """What looks like a secret, and the line (from 1) on which it stands; never the value."""
    if not _ANY.search(data):
        return
    for name, pattern in _PATTERNS:
        for found in pattern.finditer(data):
            yield name, data.count(b"\n", 0, found.start()) + 1
