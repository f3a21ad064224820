"""Import what the zoo's scripts import, once, in the process that all of them are forked from."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os

# Several scripts run at a time, and their models are tiny: one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
MODULES = (
    "torch",
    "datasets",
    "accelerate",
    "evaluate",
    "seqeval.metrics",
    "sacrebleu",
    "rouge_score.rouge_scorer",
    "sklearn.metrics",
    "transformers.trainer",
    "transformers.trainer_seq2seq",
    "transformers.training_args_seq2seq",
    "transformers.data.data_collator",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.marian.modeling_marian",
    "transformers.models.t5.modeling_t5",
    "touchstone.auditing.script",
    "touchstone.auditing.adapters.loop",
    "touchstone.auditing.adapters.trainer",
    "touchstone.auditing.adapters.trainer_resume",
    "touchstone.auditing.reporting.batch",
    "touchstone.stages",
)
for _name in MODULES:
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module(_name)

with contextlib.suppress(ModuleNotFoundError):
    importlib.import_module("touchstone.auditing.probe").load_probes()

# A collection in a forked process would look at all that was imported, and copy the pages of it: 0.3 s each time.
gc.collect()
gc.freeze()
