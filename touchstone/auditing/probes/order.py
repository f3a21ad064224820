"""Probes of the order of training rows: epochs, seeds, workers, resume."""
