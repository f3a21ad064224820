"""Small implementations with exactly one bug each, and which checks must catch them.

`python -m tests.planted` prints which check catches which bug and writes docs/planted-bugs.md.
"""

from tests.planted import alignment, chunking, collation, masking, scoring
from tests.planted.bug import BUGS, Bug, link

__all__ = ["BUGS", "Bug", "alignment", "chunking", "collation", "link", "masking", "scoring"]
