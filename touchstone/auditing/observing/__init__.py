"""Watch a script while it runs: what it maps, computes, steps and evaluates."""
