"""``llmctl completion``"""

from __future__ import annotations

import click


@click.command("completion", short_help="Print the script that completes llmctl in your shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the script that completes llmctl in your shell: commands, options, names from llmops.yaml.

    \b
    Examples:
      bash: put this line into ~/.bashrc, with bash 4.4 or newer
        eval "$(llmctl completion bash)"
      zsh: put these lines into ~/.zshrc
        autoload -U compinit && compinit
        eval "$(llmctl completion zsh)"
      fish: run this once
        llmctl completion fish > ~/.config/fish/completions/llmctl.fish
    """
    from click.shell_completion import get_completion_class

    from llmctl.cli import cli

    found = get_completion_class(shell)
    assert found is not None  # click has all three
    click.echo(found(cli, {}, "llmctl", "_LLMCTL_COMPLETE").source())
    return 0
