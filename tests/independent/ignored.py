"""The label of positions that losses and scores leave out, as docs/contract.md defines it."""

IGNORED = -100
