"""Which look belongs to which task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
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
from touchstone.show.tables import set_in_columns, visible
from touchstone.stages.causal import key_token_weights
from touchstone.stages.ragged import Array

# A look at token classification: words above their labels, tokens above the labels that alignment gave them.


def show_token_classification(
    pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int
) -> Iterator[RenderableType]:
    pipeline = cast(TokenClassification, pipeline)
    yield from tables.features(pipeline, columns=(WORDS, TAGS))
    data = pipeline.source.examples("train", columns=(WORDS, TAGS))
    columns, names = pipeline.columns("train"), pipeline.names
    chosen = tables.sample(len(data), count=samples, seed=seed)
    for row in chosen:
        example = data[row]
        yield tables.heading(f"Train example {row}: words above their labels")
        if not example[WORDS]:
            yield from tables.lines("(no words)")
        yield from tables.in_columns([example[WORDS], [names[tag] for tag in example[TAGS]]], width=width, labels=1)
        yield tables.heading(f"Train example {row}: tokens above their labels (strategy {pipeline.options.strategy})")
        labels = [spell(int(label), names=names) for label in columns["labels"][row]]
        yield from tables.in_columns(
            [tables.tokens_of(pipeline, columns["input_ids"][row]), labels], width=width, labels=1
        )
    yield from tables.padded_batch(pipeline, tables.sample(len(data), count=batch_size, seed=seed), width=width)
    yield from tables.token_statistics(pipeline, batch_size=batch_size)
    for split in ("train", "validation"):
        yield tables.heading(f"Labels in {split}")
        gold = pipeline.source.examples(split, columns=(WORDS, TAGS))[TAGS]
        words = Counter(dict.fromkeys(names, 0))
        words.update(names[tag] for tags in gold for tag in tags)
        tokens = Counter(spell(int(label), names=names) for label in tables.ragged(pipeline, split, "labels").values)
        yield from tables.counts([("words", words), ("tokens", tokens)], of="label")


def spell(label: int, *, names: list[str]) -> str:
    return str(label) if label == tables.IGNORED else names[label]


# A look at masked language modeling: texts, the chunks they are cut into, and what is hidden in one.


SHOWN_CHARACTERS = 600
CONTEXT_CHARACTERS = 900


def show_masked_lm(
    pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int
) -> Iterator[RenderableType]:
    pipeline = cast(MaskedLM, pipeline)
    yield from tables.features(pipeline, columns=(TEXT,))
    data = pipeline.source.examples("train", columns=(TEXT,))
    for row in tables.sample(len(data), count=samples, seed=seed):
        text = data[row][TEXT]
        length = tables.token_count(pipeline, text)
        yield tables.heading(f"Train document {row}: {len(text):,} characters, {length:,} tokens")
        shown = visible(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ...")
        yield Padding(Text(shown), (0, 0, 0, 2))
    columns = pipeline.columns("train")
    yield tables.heading(f"Chunks of {pipeline.options.chunk_length} tokens (the tail: {pipeline.options.tail})")
    for split in ("train", "validation"):
        lengths = Counter(str(length) for length in tables.ragged(pipeline, split, "input_ids").lengths)
        spelt = ", ".join(f"{count:,} of {length}" for length, count in lengths.most_common())
        yield from tables.lines(f"{split}: {spelt}")
    row = tables.sample(len(columns["input_ids"]), count=1, seed=seed)[0]
    yield tables.heading(
        f"Train chunk {row}, masked for the first epoch: as the model sees it, above what it is to guess"
    )
    yield from masked_chunk(pipeline, row, width=width)
    size = len(columns["input_ids"])
    yield from tables.padded_batch(pipeline, tables.sample(size, count=batch_size, seed=seed), width=width)
    yield from tables.token_statistics(pipeline, batch_size=batch_size)


def masked_chunk(pipeline: MaskedLM, row: int, *, width: int) -> Iterator[RenderableType]:
    """One chunk with its hidden tokens, and how they were hidden."""
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    seen, labels = batch["input_ids"][0].numpy(), batch["labels"][0].numpy()
    hidden = labels != tables.IGNORED
    original = np.where(hidden, labels, seen)
    to_guess = [
        token if chosen else "." for token, chosen in zip(tables.tokens_of(pipeline, original), hidden, strict=True)
    ]
    styles = ["bold yellow" if chosen else "" for chosen in hidden]
    yield from set_in_columns([tables.tokens_of(pipeline, seen), to_guess], width=width, styles=[styles, styles])
    masked = int((seen[hidden] == pipeline.tokenizer.mask_token_id).sum())
    same = int((seen[hidden] == labels[hidden]).sum())
    n = int(hidden.sum())
    yield from tables.lines(
        f"{n} of {len(seen)} tokens are to be guessed: {masked} masked, "
        f"{n - masked - same} replaced by another token, {same} left as they are"
    )


# A look at translation and summarization: pairs of texts, their tokens, and what the decoder reads and is to write.


SHOWN_TOKENS = 80
"""Of a text: the rest of a long document says nothing new."""


def show_seq2seq(
    pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int
) -> Iterator[RenderableType]:
    pipeline = cast(Seq2Seq, pipeline)
    yield from tables.features(pipeline, columns=(pipeline.source_column, pipeline.target_column))
    sources, targets = pipeline.texts("train")
    chosen = tables.sample(len(sources), count=samples, seed=seed)
    for row in chosen:
        for name, column, text in (
            (pipeline.source_column, "input_ids", sources[row]),
            (pipeline.target_column, "labels", targets[row]),
        ):
            ids = tables.ragged(pipeline, "train", column)[row]
            yield tables.heading(f"Train example {row}, {name}: {len(text):,} characters, {len(ids):,} tokens")
            yield Padding(Text(visible(_first(text))), (0, 0, 1, 2))
            yield from tokens(pipeline, ids, width=width)
    if chosen:
        yield tables.heading(f"Train example {chosen[0]}: what the decoder reads, above what it is to write")
        yield from decoder(pipeline, chosen[0], width=width)
    rows = tables.sample(len(sources), count=batch_size, seed=seed)
    yield from tables.padded_batch(pipeline, rows, width=width)
    for name, column, limit in (
        (pipeline.source_column, "input_ids", pipeline.source_length),
        (pipeline.target_column, "labels", pipeline.target_length),
    ):
        yield from tables.token_statistics(pipeline, batch_size=batch_size, column=column, of=name)
        for split in ("train", "validation"):
            lengths = tables.ragged(pipeline, split, column).lengths
            full = int((lengths >= limit).sum())
            yield from tables.lines(
                f"{split}: {full:,} of {len(lengths):,} have {limit} tokens, the most they may have, and may be cut off"
            )


def tokens(pipeline: Pipeline, ids: Array, *, width: int) -> Iterator[RenderableType]:
    spelt = tables.tokens_of(pipeline, ids[:SHOWN_TOKENS])
    yield from set_in_columns([[*spelt, "..."] if len(ids) > SHOWN_TOKENS else spelt], width=width)


def decoder(pipeline: Seq2Seq, row: int, *, width: int) -> Iterator[RenderableType]:
    """The decoder's inputs above its labels, one step a column."""
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    reads, writes = (np.asarray(batch[name][0]) for name in ("decoder_input_ids", "labels"))
    yield from set_in_columns([tables.tokens_of(pipeline, ids) for ids in (reads, writes)], width=width)


def _first(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " ..."


# A look at causal language modeling: programs, the chunks they are cut into, and what is predicted in one.


SHOWN_LINES = 24


def show_causal_lm(
    pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int
) -> Iterator[RenderableType]:
    pipeline = cast(CausalLM, pipeline)
    yield from tables.features(pipeline, columns=(CODE,))
    data = pipeline.source.examples("train", columns=(CODE,))
    for row in tables.sample(len(data), count=samples, seed=seed):
        code = data[row][CODE]
        length = tables.token_count(pipeline, code)
        yield tables.heading(f"Train program {row}: {len(code):,} characters, {length:,} tokens")
        lines = code.splitlines()
        shown = [visible(line) for line in lines[:SHOWN_LINES]] + ["..."] * (len(lines) > SHOWN_LINES)
        yield Padding(Text("\n".join(shown)), (0, 0, 0, 2))
    options = pipeline.options
    yield tables.heading(
        f"Chunks of {options.context_length} tokens (the remainder of a document: {options.remainder})"
    )
    for split in ("train", "validation"):
        ids = tables.ragged(pipeline, split, "input_ids")
        lengths = Counter(int(length) for length in ids.lengths).most_common(3)
        spelt = ", ".join(f"{count:,} of {length}" for length, count in lengths)
        yield from tables.lines(f"{split}: {len(ids):,} chunks, most often {spelt}")
    row = tables.sample(len(pipeline.columns("train")["input_ids"]), count=1, seed=seed)[0]
    yield tables.heading(f"Train chunk {row}: what the model reads, above what it is to predict there")
    yield from predicted_chunk(pipeline, row, width=width)
    if options.key_tokens:
        yield from key_tokens(pipeline)
    size = len(pipeline.columns("train")["input_ids"])
    yield from tables.padded_batch(pipeline, tables.sample(size, count=batch_size, seed=seed), width=width)
    yield from tables.token_statistics(pipeline, batch_size=batch_size)


def predicted_chunk(pipeline: CausalLM, row: int, *, width: int) -> Iterator[RenderableType]:
    """One chunk above itself, moved by a token."""
    batch = pipeline.collate([FeatureRows(pipeline.columns("train"))[0, row]], train=True)
    tokens = tables.tokens_of(pipeline, batch["input_ids"][0].numpy())
    yield from set_in_columns([tokens, [*tokens[1:], "."]], width=width)
    yield from tables.lines(f"{batch['size'].items} of {len(tokens)} tokens are predicted: all but the first")


def key_tokens(pipeline: CausalLM) -> Iterator[RenderableType]:
    """How often each key token occurs, and how the chunks weigh by them."""
    ids = tables.ragged(pipeline, "train", "input_ids")
    names = dict(zip(pipeline.key_ids.tolist(), pipeline.options.key_tokens, strict=True))
    found = Counter(dict.fromkeys(names.values(), 0))
    found.update(names[token] for token in ids.values.tolist() if token in names)
    yield tables.heading("Key tokens in train")
    yield from tables.counts([("tokens", found)], of="key token")
    weights = np.concatenate(
        [key_token_weights([chunk.tolist()], key_ids=pipeline.key_ids, alpha=pipeline.options.alpha) for chunk in ids]
    )
    yield from tables.lines(
        f"a chunk weighs {weights.min():g} to {weights.max():g}, {weights.mean():.2f} on average (alpha "
        f"{pipeline.options.alpha:g}); evaluation weighs all alike"
    )


# A look at question answering: a question, its context in windows, and the answer marked in each that holds it.


SPLITS = ("train", "validation")


def show_question_answering(
    pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int
) -> Iterator[RenderableType]:
    pipeline = cast(QuestionAnswering, pipeline)
    yield from tables.features(pipeline, columns=(QUESTION, CONTEXT, ANSWERS))
    train, options = pipeline.split("train"), pipeline.options
    for number in tables.sample(len(train.contexts), count=samples, seed=seed):
        yield from example(pipeline, number)
    yield tables.heading(f"Windows of at most {options.max_length} tokens, neighbours share {options.stride}")
    for split in SPLITS:
        part = pipeline.split(split)
        labelled = part.columns["start"] != part.cls
        without = len(part.contexts) - len(np.unique(part.example[labelled]))
        windows = Counter(np.bincount(part.example, minlength=len(part.contexts)).tolist())
        spelt = ", ".join(f"{count:,} in {many}" for many, count in sorted(windows.items()))
        yield from tables.lines(
            f"{split}: {len(part.contexts):,} examples ({spelt}), {len(part.example):,} windows",
            f"  {np.count_nonzero(labelled):,} windows hold a whole answer; {without:,} examples have "
            f"none that does; {part.cut:,} questions are cut to {pipeline.longest_question} tokens",
        )
    size = len(train.example)
    yield from tables.padded_batch(pipeline, tables.sample(size, count=batch_size, seed=seed), width=width)
    yield from tables.token_statistics(pipeline, batch_size=batch_size)


def example(pipeline: QuestionAnswering, number: int) -> Iterator[RenderableType]:
    """One example of the train split: its texts, and its windows as the model reads them."""
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
        held = np.flatnonzero(split.starts[row] >= 0)
        label = "no whole answer: " if first == split.cls[row] else ""
        yield from tables.lines(f"window {place} of {len(rows)}: {label}tokens {first} to {last}")
        if held.size:
            span = None if label else (int(split.starts[row][first]), int(split.ends[row][last]))
            edges = int(split.starts[row][held[0]]), int(split.ends[row][held[-1]])
            yield Padding(marked(context, span, edges=edges), (0, 0, 0, 4))


def marked(context: str, span: tuple[int, int] | None, *, edges: tuple[int, int]) -> Text:
    """The part of the context that a window holds, the answer in brackets and in colour."""
    start, end = edges
    if span is None:
        return Text(visible(context[start : min(end, start + CONTEXT_CHARACTERS)]), style="dim")
    room = CONTEXT_CHARACTERS // 2
    before, after = context[max(start, span[0] - room) : span[0]], context[span[1] : min(end, span[1] + room)]
    text = Text(visible(before))
    text.append(f"[{visible(context[span[0] : span[1]])}]", style="bold yellow")
    text.append(visible(after))
    return text


class Look(Protocol):
    """Shows a pipeline's data piece by piece, as each is ready.

    Args:
        samples: examples to show, drawn by `seed`.
        batch_size: of the padded batch, and of the batches that the share of padding is computed for.
        width: terminal cells a line.
    """

    def __call__(
        self, pipeline: Pipeline, *, samples: int, seed: int, batch_size: int, width: int
    ) -> Iterator[RenderableType]: ...


LOOKS: dict[str, Look] = {
    "token-classification": show_token_classification,
    "masked-lm": show_masked_lm,
    "translation": show_seq2seq,
    "summarization": show_seq2seq,
    "causal-lm": show_causal_lm,
    "question-answering": show_question_answering,
}
