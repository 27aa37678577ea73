"""``llmctl schema``"""

from __future__ import annotations

import json

import click


@click.command("schema", short_help="Print the JSON Schema of llmops.yaml, for editors.")
def command() -> int:
    """Print the JSON Schema of llmops.yaml, for editors.

    Kinds that installed packages add are in it too.

    \b
    Example:
      llmctl schema > llmops.schema.json
      # then, as the first line of llmops.yaml:
      # yaml-language-server: $schema=llmops.schema.json
    """
    from llmctl.core.plugins import installed
    from llmctl.spec import json_schema

    click.echo(json.dumps(json_schema(installed().values()), indent=2))
    return 0
