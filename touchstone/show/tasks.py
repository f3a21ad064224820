"""Show the data of each task: one function per task, and `SHOW`, which finds it by the task's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol, cast

import numpy as np
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text

from touchstone.pipelines.causal_lm import CODE, CausalLM
from touchstone.pipelines.masked_lm import TEXT, MaskedLM
from touchstone.pipelines.pipeline import FeatureRows, Pipeline
from touchstone.pipelines.question_answering import ANSWERS, CONTEXT, QUESTION, QuestionAnswering
from touchstone.pipelines.seq2seq import Seq2Seq
from touchstone.pipelines.token_classification import TAGS, WORDS, TokenClassification
from touchstone.show import tables
from touchstone.show.columns import set_in_columns, visible
from touchstone.show.tables import SPLITS, View
from touchstone.stages.causal import key_token_weights
from touchstone.stages.ragged import IGNORED

SHOWN_LINES = 24
"""Lines shown of a long program."""
SHOWN_TOKENS = 80
"""Tokens shown of a long text."""
CONTEXT_CHARACTERS = 900
"""Characters shown of the context of a question."""


class Show(Protocol):
    """Yields a pipeline's data piece by piece, each as soon as it is ready.

    Args:
        batch_size: size of the padded batch, and of the batches that the share of padding is computed for.
    """

    def __call__(self, pipeline: Pipeline, *, view: View, batch_size: int) -> Iterator[RenderableType]: ...


def show_token_classification(pipeline: Pipeline, *, view: View, batch_size: int) -> Iterator[RenderableType]:
    """Show words above their labels, and tokens above the labels that they get."""
    pipeline = cast(TokenClassification, pipeline)
    yield from tables.features(pipeline, columns=(WORDS, TAGS))
    data = pipeline.source.examples("train", columns=(WORDS, TAGS))
    columns, names = pipeline.columns("train"), pipeline.names
    for row in view.rows(len(data)):
        example = data[row]
        yield tables.heading(f"Train example {row}: words above their labels")
        if not example[WORDS]:
            yield from tables.lines("(no words)")
        yield from _labelled(example[WORDS], [names[tag] for tag in example[TAGS]], view=view)
        yield tables.heading(f"Train example {row}: tokens above their labels (strategy {pipeline.options.strategy})")
        labels = [_label_name(int(label), names=names) for label in columns["labels"][row]]
        yield from _labelled(tables.tokens_of(pipeline, columns["input_ids"][row]), labels, view=view)
    yield from _batch_and_statistics(pipeline, size=len(data), batch_size=batch_size, view=view)
    for split in SPLITS:
        yield tables.heading(f"Labels in {split}")
        gold = pipeline.source.examples(split, columns=(WORDS, TAGS))[TAGS]
        words = Counter(dict.fromkeys(names, 0))
        words.update(names[tag] for tags in gold for tag in tags)
        ids = tables.ragged(pipeline, split, "labels").values
        tokens = Counter(_label_name(int(label), names=names) for label in ids)
        yield from tables.counts([("words", words), ("tokens", tokens)], of="label")


def show_masked_lm(pipeline: Pipeline, *, view: View, batch_size: int) -> Iterator[RenderableType]:
    """Show texts, the chunks they are cut into, and one chunk with its masked tokens."""
    pipeline = cast(MaskedLM, pipeline)
    yield from tables.features(pipeline, columns=(TEXT,))
    for row, text in _texts(pipeline, TEXT, view=view):
        yield _text_heading(pipeline, f"Train document {row}", text)
        yield tables.paragraph(text)
    options = pipeline.options
    yield tables.heading(f"Chunks of {options.chunk_length} tokens (tail: {options.tail})")
    for split in SPLITS:
        yield from _chunk_lengths(pipeline, split)
    size = len(pipeline.columns("train")["input_ids"])
    (row,) = view.rows(size, count=1)
    yield tables.heading(f"Train chunk {row}, masked for the first epoch: what the model sees, above what to predict")
    yield from _masked_chunk(pipeline, row, view=view)
    yield from _batch_and_statistics(pipeline, size=size, batch_size=batch_size, view=view)


def show_causal_lm(pipeline: Pipeline, *, view: View, batch_size: int) -> Iterator[RenderableType]:
    """Show programs, the chunks they are cut into, one chunk above the tokens to predict, and the key tokens."""
    pipeline = cast(CausalLM, pipeline)
    yield from tables.features(pipeline, columns=(CODE,))
    for row, code in _texts(pipeline, CODE, view=view):
        yield _text_heading(pipeline, f"Train program {row}", code)
        lines = code.splitlines()
        shown = [visible(line) for line in lines[:SHOWN_LINES]] + ["..."] * (len(lines) > SHOWN_LINES)
        yield Padding(Text("\n".join(shown)), (0, 0, 0, 2))
    options = pipeline.options
    yield tables.heading(f"Chunks of {options.context_length} tokens (remainder of a document: {options.remainder})")
    for split in SPLITS:
        yield from _chunk_lengths(pipeline, split)
    size = len(pipeline.columns("train")["input_ids"])
    (row,) = view.rows(size, count=1)
    yield tables.heading(f"Train chunk {row}: what the model reads, above the token to predict next")
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    tokens = tables.tokens_of(pipeline, batch["input_ids"][0].numpy())
    yield from set_in_columns([tokens, [*tokens[1:], "."]], width=view.width)
    yield from tables.lines(f"{batch['size'].items} of {len(tokens)} tokens are predicted: all but the first")
    if options.key_tokens:
        yield from _key_tokens(pipeline)
    yield from _batch_and_statistics(pipeline, size=size, batch_size=batch_size, view=view)


def show_seq2seq(pipeline: Pipeline, *, view: View, batch_size: int) -> Iterator[RenderableType]:
    """Show pairs of texts and their tokens, and the decoder's inputs above its labels."""
    pipeline = cast(Seq2Seq, pipeline)
    yield from tables.features(pipeline, columns=(pipeline.source_column, pipeline.target_column))
    sources, targets = pipeline.texts("train")
    chosen = view.rows(len(sources))
    for row in chosen:
        for name, column, text in (
            (pipeline.source_column, "input_ids", sources[row]),
            (pipeline.target_column, "labels", targets[row]),
        ):
            ids = tables.ragged(pipeline, "train", column)[row]
            yield tables.heading(f"Train example {row}, {name}: {len(text):,} characters, {len(ids):,} tokens")
            yield tables.paragraph(text, below=1)
            tokens = tables.tokens_of(pipeline, ids[:SHOWN_TOKENS]) + ["..."] * (len(ids) > SHOWN_TOKENS)
            yield from set_in_columns([tokens], width=view.width)
    if chosen:
        yield tables.heading(f"Train example {chosen[0]}: what the decoder reads, above the token to produce next")
        batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, chosen[0]]], train=True)
        rows = [np.asarray(batch[name][0]) for name in ("decoder_input_ids", "labels")]
        yield from set_in_columns([tables.tokens_of(pipeline, ids) for ids in rows], width=view.width)
    yield from tables.padded_batch(pipeline, size=len(sources), batch_size=batch_size, view=view)
    for name, column, limit in (
        (pipeline.source_column, "input_ids", pipeline.source_length),
        (pipeline.target_column, "labels", pipeline.target_length),
    ):
        yield from tables.token_statistics(pipeline, batch_size=batch_size, column=column, of=name)
        for split in SPLITS:
            lengths = tables.ragged(pipeline, split, column).lengths
            full = int((lengths >= limit).sum())
            yield from tables.lines(
                f"{split}: {full:,} of {len(lengths):,} have the maximum of {limit} tokens and may be cut off"
            )


def show_question_answering(pipeline: Pipeline, *, view: View, batch_size: int) -> Iterator[RenderableType]:
    """Show questions, and the windows of their contexts with the answer marked."""
    pipeline = cast(QuestionAnswering, pipeline)
    yield from tables.features(pipeline, columns=(QUESTION, CONTEXT, ANSWERS))
    train, options = pipeline.split("train"), pipeline.options
    for number in view.rows(len(train.contexts)):
        yield from _question(pipeline, number)
    yield tables.heading(f"Windows of at most {options.max_length} tokens, overlapping by {options.stride}")
    for split in SPLITS:
        part = pipeline.split(split)
        labelled = part.columns["start"] != part.cls
        without = len(part.contexts) - len(np.unique(part.example[labelled]))
        windows = Counter(np.bincount(part.example, minlength=len(part.contexts)).tolist())
        numbers = ", ".join(f"{count:,} in {many}" for many, count in sorted(windows.items()))
        yield from tables.lines(
            f"{split}: {len(part.contexts):,} examples ({numbers}), {len(part.example):,} windows",
            f"  {np.count_nonzero(labelled):,} windows contain a whole answer; {without:,} examples have "
            f"no such window; {part.cut:,} questions are cut to {pipeline.longest_question} tokens",
        )
    yield from _batch_and_statistics(pipeline, size=len(train.example), batch_size=batch_size, view=view)


SHOW: dict[str, Show] = {
    "token-classification": show_token_classification,
    "masked-lm": show_masked_lm,
    "translation": show_seq2seq,
    "summarization": show_seq2seq,
    "causal-lm": show_causal_lm,
    "question-answering": show_question_answering,
}


def _batch_and_statistics(pipeline: Pipeline, *, size: int, batch_size: int, view: View) -> Iterator[RenderableType]:
    yield from tables.padded_batch(pipeline, size=size, batch_size=batch_size, view=view)
    yield from tables.token_statistics(pipeline, batch_size=batch_size)


def _texts(pipeline: Pipeline, column: str, *, view: View) -> Iterator[tuple[int, str]]:
    """Yield the chosen training rows of a column of texts, with their numbers."""
    data = pipeline.source.examples("train", columns=(column,))
    for row in view.rows(len(data)):
        yield row, data[row][column]


def _text_heading(pipeline: Pipeline, what: str, text: str) -> Text:
    return tables.heading(f"{what}: {len(text):,} characters, {tables.token_count(pipeline, text):,} tokens")


def _chunk_lengths(pipeline: Pipeline, split: str) -> list[RenderableType]:
    """Show the number of chunks, and their most frequent lengths."""
    lengths = tables.ragged(pipeline, split, "input_ids").lengths
    found = Counter(int(length) for length in lengths).most_common()
    shown = ", ".join(f"{count:,} of {length}" for length, count in found[:3])
    return tables.lines(f"{split}: {len(lengths):,} chunks: {shown}{', ...' if len(found) > 3 else ''}")


def _labelled(texts: Sequence[str], labels: Sequence[str], *, view: View) -> list[RenderableType]:
    return tables.in_columns([texts, labels], width=view.width, labels=1)


def _label_name(label: int, *, names: Sequence[str]) -> str:
    return str(label) if label == IGNORED else names[label]


def _masked_chunk(pipeline: MaskedLM, row: int, *, view: View) -> Iterator[RenderableType]:
    """Show one chunk above its masked tokens, and how these were masked."""
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    seen, labels = batch["input_ids"][0].numpy(), batch["labels"][0].numpy()
    hidden = labels != IGNORED
    original = tables.tokens_of(pipeline, np.where(hidden, labels, seen))
    to_predict = [token if chosen else "." for token, chosen in zip(original, hidden, strict=True)]
    styles = ["bold yellow" if chosen else "" for chosen in hidden]
    yield from set_in_columns([tables.tokens_of(pipeline, seen), to_predict], width=view.width, styles=[styles, styles])
    masked = int((seen[hidden] == pipeline.tokenizer.mask_token_id).sum())
    same = int((seen[hidden] == labels[hidden]).sum())
    n = int(hidden.sum())
    yield from tables.lines(
        f"{n} of {len(seen)} tokens are to be predicted: {masked} masked, "
        f"{n - masked - same} replaced by another token, {same} unchanged"
    )


def _key_tokens(pipeline: CausalLM) -> Iterator[RenderableType]:
    """Show how often each key token occurs, and the weights that the chunks get from them."""
    ids = tables.ragged(pipeline, "train", "input_ids")
    names = dict(zip(pipeline.key_ids.tolist(), pipeline.options.key_tokens, strict=True))
    found = Counter(dict.fromkeys(names.values(), 0))
    found.update(names[token] for token in ids.values.tolist() if token in names)
    yield tables.heading("Key tokens in train")
    yield from tables.counts([("tokens", found)], of="key token")
    alpha = pipeline.options.alpha
    weights = np.concatenate(
        [key_token_weights([chunk.tolist()], key_ids=pipeline.key_ids, alpha=alpha) for chunk in ids]
    )
    yield from tables.lines(
        f"the weight of a chunk is {weights.min():g} to {weights.max():g}, {weights.mean():.2f} on average "
        f"(alpha {alpha:g}); in evaluation all chunks have the same weight"
    )


def _question(pipeline: QuestionAnswering, number: int) -> Iterator[RenderableType]:
    """Show one training example: its question and answers, and its windows as the model reads them."""
    split = pipeline.split("train")
    context, references = split.contexts[number], split.references[number]
    rows = np.flatnonzero(split.example == number).tolist()
    yield tables.heading(f"Train example {number}: {len(context):,} characters, {len(rows)} windows")
    yield from tables.lines(
        f"question: {visible(split.questions[number])}",
        f"answers:  {visible(' | '.join(references)) if references else '(none)'}",
    )
    for place, row in enumerate(rows, start=1):
        first, last = (int(split.columns[name][row]) for name in ("start", "end"))
        inside = np.flatnonzero(split.starts[row] >= 0)
        label = "no whole answer: " if first == split.cls[row] else ""
        yield from tables.lines(f"window {place} of {len(rows)}: {label}tokens {first} to {last}")
        if inside.size:
            span = None if label else (int(split.starts[row][first]), int(split.ends[row][last]))
            edges = int(split.starts[row][inside[0]]), int(split.ends[row][inside[-1]])
            yield Padding(_marked(context, span, edges=edges), (0, 0, 0, 4))


def _marked(context: str, span: tuple[int, int] | None, *, edges: tuple[int, int]) -> Text:
    """Return the part of the context inside a window, with the answer in brackets and in colour."""
    start, end = edges
    if span is None:
        return Text(visible(context[start : min(end, start + CONTEXT_CHARACTERS)]), style="dim")
    room = CONTEXT_CHARACTERS // 2
    before, after = context[max(start, span[0] - room) : span[0]], context[span[1] : min(end, span[1] + room)]
    text = Text(visible(before))
    text.append(f"[{visible(context[span[0] : span[1]])}]", style="bold yellow")
    text.append(visible(after))
    return text
