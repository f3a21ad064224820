"""Probes of the loss and the gradient of one optimizer step."""
