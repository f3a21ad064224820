"""The subcommands of `touchstone`: each says what it takes, and imports what it needs when it runs."""
