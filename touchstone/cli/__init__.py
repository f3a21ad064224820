"""The subcommands of `touchstone`, one module each.

Each module defines DESCRIPTION and EPILOG (its help texts), add_arguments(parser) and run(options), which returns the
exit code. Modules import what is slow inside `run`, so that their `--help` is fast.
"""
