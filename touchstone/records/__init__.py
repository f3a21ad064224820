"""Records: what a run and its machine leave on disk."""
