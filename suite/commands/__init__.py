"""The subcommands of `python -m suite`: each says what it takes, and imports what it needs when it runs."""
