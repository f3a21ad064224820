"""Probes of evaluation: every example once, loss, metric, leaks."""
