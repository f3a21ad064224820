"""Probes of training and evaluation mode: dropout on and off."""
