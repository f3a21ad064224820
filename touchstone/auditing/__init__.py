"""Audit a training run: is what it trains on, computes and reports what it says?

* `finding`: outcomes, findings and the report.
* `probe`: the table of probes, and the function that runs them.
* `subject`: what a probe looks at. Adapters make one of a Trainer, of an observed loop, or of plain parts.
* `observe`, `record`, `ending`: run a script under observation. `loop` makes a subject of what was seen.
* `probes`: the probes, one module per group.
"""
