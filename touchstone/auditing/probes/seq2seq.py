"""Probes of translation and summarization: decoder inputs, targets, ends."""
