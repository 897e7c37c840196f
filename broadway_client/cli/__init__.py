"""The `broadway` command."""
