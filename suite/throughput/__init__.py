"""Measure how fast each stage is, compared with other implementations: `pytest suite/throughput`."""
