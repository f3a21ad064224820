"""The subjects: real code that is audited, with its arguments and the packages whose versions matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

COURSE = ("transformers", "torch", "datasets", "accelerate")
EXAMPLE = ("transformers", "torch", "datasets")


@dataclass(frozen=True)
class Subject:
    """One audited script.

    Args:
        id: its name on the page and in the record.
        origin: whose code it is: `course`, `examples` or `libraries`.
        title: what it trains, in a few words.
        script: the file, in `scripts/` or, of the origin `examples`, in the folder of downloaded scripts.
        arguments: the script's own arguments.
        packages: the installed packages whose versions are recorded.
        note: how it differs from its original, if it does.
    """

    id: str
    origin: str
    title: str
    script: str
    arguments: Sequence[str] = ()
    packages: Sequence[str] = COURSE
    note: str = ""


def _course(section: str, title: str, variant: str, note: str = "") -> Subject:
    name = f"course_{section.replace('.', '_')}_{variant}"
    return Subject(f"course-{section}-{variant.replace('_', '-')}", "course", title, f"{name}.py", note=note)


def _example(id: str, title: str, arguments: str) -> Subject:
    common = "--do_train --do_eval --output_dir out --report_to none --per_device_train_batch_size 8"
    return Subject(id, "examples", title, f"{id.split('-')[0]}.py", [*arguments.split(), *common.split()], EXAMPLE)


NER = "--model_name_or_path tiny-bert --train_file sentences.train.json --validation_file sentences.validation.json"
TEXTS = "--train_file documents.train.json --validation_file documents.validation.json"
PAIRS = "--train_file translations.train.json --validation_file translations.validation.json"
HEADLINES = "--train_file headlines.train.json --validation_file headlines.validation.json"
SQUAD = "--train_file questions.train.json --validation_file questions.validation.json"
LANGUAGES = "--source_lang en --target_lang fr"

SUBJECTS = (
    _course("7.2", "token classification, Trainer", "trainer"),
    _course("7.2", "token classification, loop with Accelerate", "accelerate"),
    _course("7.3", "masked language modelling, Trainer", "trainer"),
    _course("7.3", "masked language modelling, the collator for whole words", "whole_words"),
    _course("7.3", "masked language modelling, loop with Accelerate", "accelerate"),
    _course("7.4", "translation, Seq2SeqTrainer", "trainer"),
    _course("7.4", "translation, loop with Accelerate", "accelerate"),
    _course("7.5", "summarization, Seq2SeqTrainer", "trainer", "sentences are split at full stops, not by punkt"),
    _course(
        "7.5", "summarization, loop with Accelerate", "accelerate", "sentences are split at full stops, not by punkt"
    ),
    _course("7.6", "causal language modelling, Trainer", "trainer", "batches of 8 instead of 32, 4 steps of warm-up"),
    _course(
        "7.6",
        "causal language modelling, loop with a weighted loss",
        "accelerate",
        "batches of 4 instead of 32, 4 steps of warm-up; the scalar that `evaluate` gathers is given a dimension",
    ),
    _course("7.7", "question answering, Trainer", "trainer", "windows of 96 tokens instead of 384"),
    _course("7.7", "question answering, loop with Accelerate", "accelerate", "windows of 96 tokens instead of 384"),
    _example("run_ner", "token classification", NER),
    _example("run_ner-accumulated", "token classification, accumulation 4", f"{NER} --gradient_accumulation_steps 4"),
    _example(
        "run_ner-grouped",
        "token classification, rows grouped by length",
        f"{NER} --train_sampling_strategy group_by_length",
    ),
    _example("run_mlm", "masked language modelling", f"--model_name_or_path tiny-bert {TEXTS} --max_seq_length 128"),
    _example("run_clm", "causal language modelling", f"--model_name_or_path tiny-gpt2 {TEXTS} --block_size 128"),
    _example(
        "run_qa",
        "question answering",
        f"--model_name_or_path tiny-bert {SQUAD} --max_seq_length 72 --doc_stride 16",
    ),
    _example(
        "run_translation",
        "translation",
        f"--model_name_or_path tiny-marian {PAIRS} {LANGUAGES} --predict_with_generate",
    ),
    _example(
        "run_translation-accumulated",
        "translation, accumulation 4",
        f"--model_name_or_path tiny-marian {PAIRS} {LANGUAGES} --predict_with_generate --gradient_accumulation_steps 4",
    ),
    _example(
        "run_summarization",
        "summarization",
        f"--model_name_or_path tiny-t5 {HEADLINES} --text_column document --summary_column summary "
        "--predict_with_generate",
    ),
    Subject(
        "trl-sft",
        "libraries",
        "SFTTrainer, prompts and completions",
        "trl_sft.py",
        packages=("trl", "transformers", "torch"),
    ),
    Subject(
        "trl-sft-packed",
        "libraries",
        "SFTTrainer, packed texts",
        "trl_sft_packed.py",
        packages=("trl", "transformers", "torch"),
    ),
    Subject(
        "sentence-transformers",
        "libraries",
        "SentenceTransformerTrainer, pairs",
        "sentence_transformers_pairs.py",
        packages=("sentence-transformers", "transformers", "torch"),
    ),
    Subject(
        "simpletransformers",
        "libraries",
        "NERModel, a loop of its own",
        "simpletransformers_ner.py",
        packages=("simpletransformers", "transformers", "torch"),
    ),
)
