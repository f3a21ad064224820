"""`python -m suite` in a clone: the same command as `touchstone`."""

import sys

from touchstone.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
