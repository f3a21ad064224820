"""Probes of question answering: labelled spans, windows, the null place."""
