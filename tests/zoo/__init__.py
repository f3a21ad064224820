"""The bug zoo: small training scripts as people write them, each with one fault, and their clean twins.

* `clean/*.py`: whole scripts without a fault. They run in a folder of assets and use relative paths, such as
  "tiny-bert" and "sentences.train.jsonl".
* `faults/*.py`: the faults, one module per group. A fault is a small edit of a clean script.
* `assets`: writes the folder of assets: data sets, tokenizers, and tiny models with random weights.
* `run`: audits a script in a forked process.
* `python -m tests.zoo` writes docs/zoo.md; `python -m tests.zoo show FAULT` prints a faulty script.
"""
