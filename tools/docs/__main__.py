"""Write the generated pages, and remove those of commands that are gone."""

from __future__ import annotations

from pathlib import Path

from tools.docs import pages

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    made = pages()
    for old in (DOCS / "commands").glob("*.md"):
        if f"commands/{old.name}" not in made:
            old.unlink()
    for path, text in made.items():
        file = DOCS / path
        file.parent.mkdir(exist_ok=True)
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            print(f"docs/{path}")


main()
