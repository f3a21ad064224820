"""Audit a training run: is what it trains on, computes and reports what it says?

* `finding`: outcomes, findings and the report. `probe`: the table of probes, and the function that runs them.
* `subject`: what a probe looks at. `adapters`: make one of a Trainer, of an observed loop, or of plain parts.
* `script`, `watch`, `audit`, `testcase`: the ways in. `observing`: what a script does, seen while it runs.
* `probes`: the probes, one module per group. `reading`: what several of them read, such as source rows and losses.
* `reporting`: the report as a table, a page, and JSON. `restore`: leave no trace.
"""
