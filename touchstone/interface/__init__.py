"""A session of `pytest suite/`: its options, what it runs, what a person sees."""
