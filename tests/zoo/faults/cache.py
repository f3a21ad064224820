"""Faults of caches."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="cache-of-another-limit",
        script="translation_trainer",
        says="The cache has a fixed name, so an old result with another limit is read.",
        edits=(
            (
                "tokenized_datasets = raw.map("
                'preprocess_function, batched=True, remove_columns=raw["train"].column_names)',
                "options = {\n"
                '    "batched": True,\n'
                '    "remove_columns": raw["train"].column_names,\n'
                '    "cache_file_names": {"train": "./train.arrow", "validation": "./validation.arrow"},\n'
                "}\n"
                "max_length = 8  # a trial\n"
                "raw.map(preprocess_function, **options)\n"
                "max_length = 128\n"
                "tokenized_datasets = raw.map(preprocess_function, **options)",
            ),
        ),
        probes=("map-is-fresh",),
        cause="cache_file_name.*load_from_cache_file=False",
    ),
    Fault(
        id="cache-of-another-function",
        script="clm_documents",
        says="The cache has a fixed name, so the result of a function that appended no end of text is read.",
        edits=(
            (
                'tokenized = raw.map(tokenize, remove_columns=["text"])',
                "def tokenize_without_end(example):\n"
                '    return tokenizer(example["text"], truncation=True, max_length=255)\n\n\n'
                'names = {"train": "./train.arrow", "validation": "./validation.arrow"}\n'
                'raw.map(tokenize_without_end, remove_columns=["text"], cache_file_names=names)\n'
                'tokenized = raw.map(tokenize, remove_columns=["text"], cache_file_names=names)',
            ),
        ),
        probes=("map-is-fresh",),
        cause="old result of another function",
    ),
)
