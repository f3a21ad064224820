"""Audits of real code: what the audit finds in the course, in transformers' examples, and in other libraries.

    python -m tools.findings run --examples DIR --metrics DIR     # audits all subjects, writes record.json
    python -m tools.findings page > docs/findings.md              # writes the page from record.json

* `subjects`: what is audited, and with which arguments.
* `scripts/`: the scripts of subjects that are not downloaded, written after what their originals do.
* `reproductions/`: the smallest programs that show a library's fault without Touchstone.
* `record.json`: the last run. A test compares docs/findings.md with the page that it gives.

`run` needs the packages that the subjects use, and two folders that are not in this repository: transformers' example
scripts (`run_ner.py`, `run_qa.py`, `utils_qa.py` ... in one folder), and the folder `metrics` of evaluate's repository.
"""
