"""Probes of masked language modelling: which tokens are chosen, replaced and labelled."""
