"""The probes of the audit, one module per group. `touchstone.auditing.probe` lists and loads them."""
