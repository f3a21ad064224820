"""The subcommands of `python -m suite`: each module says what its command takes, and imports what it needs when it runs."""
