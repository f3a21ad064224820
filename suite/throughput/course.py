"""The stages as the Hugging Face course (chapter 7) implements them, rewritten here for comparison.

`Dataset.map` over batches of 1,000, loops over tokens in Python, `sum(lists, [])`, and twenty starts times twenty ends.
The code gives the same results as the stages within its limits: one order of label ids, one answer per question, and
remainders dropped per batch.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from transformers import default_data_collator

Batch = Mapping[str, list[Any]]

N_BEST = 20
MAX_ANSWER = 30


def mapped(function: Callable[[Batch], Mapping[str, Any]], data: datasets.Dataset) -> datasets.Dataset:
    """Call `map` as the course does, but in memory and without a cache."""
    return data.map(
        function,
        batched=True,
        remove_columns=data.column_names,
        load_from_cache_file=False,
        keep_in_memory=True,
        new_fingerprint="0" * 16,  # otherwise it hashes all that the function holds, tokenizer included
    )


# Token classification (section 2) -------------------------------------------------------------------------------------


def continued_labels(labels: Sequence[int], word_ids: Sequence[int | None]) -> list[int]:
    """Give each token the label of its word. Odd ids are B tags, and the next id is the I tag of the same type."""
    result = []
    current = None
    for word_id in word_ids:
        if word_id is None:
            result.append(-100)
        elif word_id != current:
            result.append(labels[word_id])
        else:
            label = labels[word_id]
            result.append(label + 1 if label % 2 == 1 else label)
        current = word_id
    return result


def tokenize_and_align(examples: Batch, tokenizer: Any) -> Mapping[str, Any]:
    inputs = tokenizer(examples["words"], truncation=True, is_split_into_words=True)
    inputs["labels"] = [continued_labels(labels, inputs.word_ids(row)) for row, labels in enumerate(examples["tags"])]
    return dict(inputs)


def names_of_labels(
    predictions: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], names: Sequence[str]
) -> tuple[list[list[str]], list[list[str]]]:
    """Convert padded predictions and labels (B, T) to names, without ignored positions."""
    gold = [[names[label] for label in row if label != -100] for row in labels]
    guessed = [
        [names[guess] for guess, label in zip(prediction, row, strict=True) if label != -100]
        for prediction, row in zip(predictions, labels, strict=True)
    ]
    return guessed, gold


# Masked language modelling (section 3) --------------------------------------------------------------------------------


def tokenize_text(examples: Batch, tokenizer: Any) -> Mapping[str, Any]:
    result = tokenizer(examples["text"])
    result["word_ids"] = [result.word_ids(row) for row in range(len(result["input_ids"]))]
    return dict(result)


def group_texts(examples: Batch, *, length: int) -> Mapping[str, Any]:
    joined: dict[str, Any] = {name: sum(examples[name], []) for name in examples}  # noqa: RUF017 - as the course does
    total = len(joined[next(iter(joined))]) // length * length
    result = {
        name: [values[start : start + length] for start in range(0, total, length)] for name, values in joined.items()
    }
    result["labels"] = result["input_ids"].copy()
    return result


def mask_whole_words(features: Sequence[dict[str, Any]], *, mask_id: int, rate: float = 0.15) -> Any:
    for feature in features:
        word_ids = feature.pop("word_ids")
        words = collections.defaultdict(list)
        number, current = -1, None
        for position, word in enumerate(word_ids):
            if word is not None:
                if word != current:
                    current = word
                    number += 1
                words[number].append(position)
        chosen = np.random.binomial(1, rate, (len(words),))
        labels = feature["labels"]
        hidden = [-100] * len(labels)
        for word in np.where(chosen)[0]:
            for position in words[word]:
                hidden[position] = labels[position]
                feature["input_ids"][position] = mask_id
        feature["labels"] = hidden
    return default_data_collator(list(features))


# Translation and summarization (sections 4 and 5) ---------------------------------------------------------------------


def cleaned(sequences: np.ndarray[Any, Any], *, pad_id: int) -> list[list[int]]:
    """Replace -100 by padding, which the tokenizer skips."""
    rows: list[list[int]] = np.where(sequences != -100, sequences, pad_id).tolist()
    return rows


# Causal language modelling (section 6) --------------------------------------------------------------------------------


def tokenize_code(examples: Batch, tokenizer: Any, *, length: int) -> Mapping[str, Any]:
    outputs = tokenizer(
        examples["code"],
        truncation=True,
        max_length=length,
        return_overflowing_tokens=True,
        return_length=True,
        add_special_tokens=False,
    )
    chunks = []
    for size, ids in zip(outputs["length"], outputs["input_ids"], strict=True):
        if size == length:
            chunks.append(ids)
    return {"input_ids": chunks}


def key_weights(inputs: torch.Tensor, key_ids: Sequence[int], *, alpha: float = 1.0) -> torch.Tensor:
    counts = torch.stack([(inputs == key).float() for key in key_ids]).sum(dim=[0, 2])
    return alpha * (1.0 + counts)


# Question answering (section 7) ---------------------------------------------------------------------------------------


def prepare_training(examples: Batch, tokenizer: Any, *, max_length: int, stride: int) -> Mapping[str, Any]:
    inputs = tokenizer(
        [question.strip() for question in examples["question"]],
        examples["context"],
        max_length=max_length,
        truncation="only_second",
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    offset_mapping = inputs.pop("offset_mapping")
    sample_map = inputs.pop("overflow_to_sample_mapping")
    starts, ends = [], []
    for window, offsets in enumerate(offset_mapping):
        answer = examples["answers"][sample_map[window]]
        start_char = answer["answer_start"][0]
        end_char = start_char + len(answer["text"][0])
        sequence_ids = inputs.sequence_ids(window)
        place = 0
        while sequence_ids[place] != 1:
            place += 1
        first = place
        while place < len(sequence_ids) and sequence_ids[place] == 1:
            place += 1
        last = place - 1
        if offsets[first][0] > start_char or offsets[last][1] < end_char:
            starts.append(0)
            ends.append(0)
            continue
        place = first
        while place <= last and offsets[place][0] <= start_char:
            place += 1
        starts.append(place - 1)
        place = last
        while place >= first and offsets[place][1] >= end_char:
            place -= 1
        ends.append(place + 1)
    return {**inputs, "start_positions": starts, "end_positions": ends}


def best_answers(
    start_logits: np.ndarray[Any, Any],
    end_logits: np.ndarray[Any, Any],
    *,
    offsets: Sequence[Sequence[Any]],
    windows_of: Mapping[int, Sequence[int]],
    contexts: Sequence[str],
) -> list[str]:
    """Find the best answer for each example among the 20 best starts and 20 best ends of padded logits (W, T)."""
    texts = []
    for example, context in enumerate(contexts):
        answers = []
        for window in windows_of[example]:
            start, end, places = start_logits[window], end_logits[window], offsets[window]
            for first in np.argsort(start)[-1 : -N_BEST - 1 : -1].tolist():
                for last in np.argsort(end)[-1 : -N_BEST - 1 : -1].tolist():
                    if places[first] is None or places[last] is None:
                        continue
                    if last < first or last - first + 1 > MAX_ANSWER:
                        continue
                    text = context[places[first][0] : places[last][1]]
                    answers.append({"text": text, "score": start[first] + end[last]})
        texts.append(max(answers, key=lambda answer: answer["score"])["text"] if answers else "")
    return texts
