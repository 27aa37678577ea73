"""What reading a file may cost: nothing slow is imported for a file that does not need it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLOW = (
    "jinja2",
    "aiohttp",
    "asyncio",
    "git",
    "scipy",
    "rich",
    "psutil",
    "cel",
    "difflib",
    "numpy",
    "gguf",
    "jsonschema",
)


def test_nothing_slow_is_imported_for_the_example() -> None:
    program = (
        "import sys; from pathlib import Path; from llmctl import spec;"
        f"spec.resolve(spec.load(Path({str(ROOT / 'examples' / 'llmops.yaml')!r})), 'dev');"
        f"print([name for name in {SLOW!r} if name in sys.modules])"
    )
    environment = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
