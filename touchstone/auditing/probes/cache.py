"""Probes of caches: what map returns is what its function makes now."""
