"""One module a command: its arguments, one call of a use case, one view."""
