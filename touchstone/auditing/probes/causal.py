"""Probes of causal language modelling: shift, end of text, document borders."""
