"""Probes of causal language modelling: prompts and the completions that are learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.next_tokens import data_shift, labelled_pairs
from touchstone.auditing.reading.pairs import Pair, collated_pairs, sourced_rows, text_columns
from touchstone.auditing.subject import IGNORED, Subject

TASKS = ("causal-lm",)
GROUP = "causal language modelling"
ROWS = 64


@probe(
    "completion-supervised",
    group=GROUP,
    says="Where prompts have no labels, the whole completion has labels, and nothing else.",
    tasks=TASKS,
    budget="fast",
)
def completion_supervised(subject: Subject) -> Finding:
    """Compare the text that has labels with the columns that rows were made of.

    Fault: In nearly all rows, the beginning or the end of the completion has no label. The model never learns these
    tokens.

    Causes: The prompt is tokenized alone to count its tokens, and gets an end token, or other tokens at the border,
    which the whole row does not have. Or the count ignores padding at the left.

    Remedy: Tokenize prompt and completion apart without special tokens, and join the ids: `labels = [-100] *
    len(prompt) + completion`.
    """
    pairs = labelled_pairs(subject)
    shift = data_shift(pairs)
    tokenizer = subject.need("tokenizer")
    train = subject.need("train")
    partly = [pair for pair in pairs if _supervised(pair, shift) and len(_supervised(pair, shift)) < len(pair.real) - 2]
    if len(partly) < 0.2 * len(pairs):
        return passed("all tokens have labels: no prompt is left out")
    found = sourced_rows(subject, train, ROWS)
    if found is None:
        raise NotChecked(
            "the texts that rows were made of are not known: no call of Dataset.map that keeps rows was seen"
        )
    rows, sources, where = found
    pairs = collated_pairs(train, rows)
    columns = text_columns(sources)
    states: dict[str, Counter[str]] = {column: Counter() for column in columns}
    shown: dict[str, tuple[Pair, str]] = {}
    for pair, source in zip(pairs, sources, strict=True):
        places = _supervised(pair, shift)
        tokens = pair.original if pair.original is not None else pair.ids
        whole = _plain(tokenizer.decode([tokens[place] for place in pair.real]))
        said = _plain(tokenizer.decode([tokens[place] for place in places]))
        for column in columns:
            text = _plain(source[column])
            if len(text) < 4 or text not in whole:
                continue
            state = _state(text, said)
            states[column][state] += 1
            if state in ("head lost", "tail lost"):
                shown.setdefault(column, (pair, text))
    for column, counts in states.items():
        seen = sum(counts.values())
        for state in ("head lost", "tail lost"):
            if seen >= 4 and counts[state] >= 0.9 * seen and counts[state] > 0.5 * len(pairs):
                pair, text = shown[column]
                lost = "beginning" if state == "head lost" else "end"
                return fail(
                    f"in {counts[state]} of {seen} rows the {lost} of {column!r} is unlabelled",
                    cause="the place where labels begin is not where the completion begins: count the prompt's tokens "
                    "as they stand in the row, without a special token at the prompt's end and with padding on the "
                    f"left ({where})",
                    measured=counts[state],
                    expected=0,
                    example=_border(subject, pair, shift),
                )
    whole_columns = [
        column for column, counts in states.items() if counts["whole"] > 0.9 * max(1, sum(counts.values()))
    ]
    none = [column for column, counts in states.items() if counts["none"] > 0.9 * max(1, sum(counts.values()))]
    names = ", ".join(map(repr, whole_columns)) or "no column"
    if whole_columns or none:
        return passed(f"{names} has labels as a whole; {', '.join(map(repr, none)) or 'no column'} has none")
    raise NotChecked("the texts that have labels are no columns of the data")


def _supervised(pair: Pair, shift: int) -> list[int]:
    """Return the places of the tokens that are targets."""
    return [
        place for place in pair.real if 0 <= place - shift < len(pair.labels) and pair.labels[place - shift] != IGNORED
    ]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _state(text: str, said: str) -> str:
    """Say how much of a text has labels."""
    if text in said:
        return "whole"
    # At a border two texts may share a token, so one word more or less proves nothing.
    for cut in range(1, len(text) * 9 // 10):
        if said.startswith(text[cut:]):
            return "head lost" if _words_of(text[:cut]) else "whole"
    if len(said) >= 2 and text.startswith(said.strip()) and len(said) >= len(text) // 10:
        return "tail lost"
    return "none"


def _words_of(text: str) -> bool:
    return any(letter.isalnum() for letter in text)


def _border(subject: Subject, pair: Pair, shift: int) -> Example:
    first = _supervised(pair, shift)[0]
    places = range(max(0, first - 8), min(len(pair.ids), first + 8))
    texts = subject.token_texts([pair.ids[place] for place in places])
    labels = [pair.labels[place - shift] if place >= shift else IGNORED for place in places]
    cells: list[Sequence[Any]] = [
        (token, "-100" if label == IGNORED else subject.token_texts([label])[0])
        for token, label in zip(texts, labels, strict=True)
    ]
    return Example(("token", "label"), cells, marked=(first - places[0],), caption="where the labels of a row begin")
