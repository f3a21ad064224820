"""Probes of token classification: tokens and labels against the words and tags they came from."""
