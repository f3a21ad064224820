"""Probes of optimizer and schedule: what is trained, decay groups, clipping, learning rate."""
