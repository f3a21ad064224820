"""Probes of tokenizer and model: ids, special ids, padding, rows of one batch."""
