"""The probe of targets that belong to another source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.lineage import IDS, Lineage, lineages, tokens_of
from touchstone.auditing.reading.pairs import flat, text_columns
from touchstone.auditing.reading.targets import body_of
from touchstone.auditing.reading.words import find
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Row, Subject, ints

ROWS = 48
SOURCES = 500
"""Source rows among which the rows that labels belong to are looked for."""
LETTERS = 300
"""Characters of each text that are tokenized: more than enough for its first tokens."""
HEAD = 12
"""Tokens by which targets are told apart, so that truncated ones are found too."""
SHORT = 3
"""Targets of fewer tokens than these are alike by chance."""
MOST = 0.8
"""It is a fault if this share of the labels are targets of other rows, and theirs are not among the others."""


@probe(
    "target-of-its-source",
    group="translation and summarization",
    says="The labels of a row are the target of its own source.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def target_of_its_source(subject: Subject) -> Finding:
    """Look up the labels of rows among the tokenized targets of all source rows.

    Fault: The labels of most rows are the target of another row. The loss falls all the same, because the model learns
    to write likely targets.

    Causes: Sources and targets were sorted, filtered or shuffled apart. Or the index into one of both lists is off by
    one.

    Remedy: Keep both in one row, and reorder rows: `dataset.shuffle()`, `df.sample()`, `zip(sources, targets)`.
    """
    train = subject.need("train")
    for lineage in lineages(subject, train):
        origins = lineage.origins[:ROWS]
        texts = _texts(lineage)
        columns = text_columns(list(texts.values()))
        if not origins or len(columns) < 2 or any(each.number not in texts for each in origins):
            continue
        rows = tokens_of(train, origins)
        if not all("labels" in row and IDS in row for row in rows):
            raise NotChecked("the batches have no labels")
        heads = [_head(subject, [each for each in ints(row["labels"]) if each != IGNORED]) for row in rows]
        long = [(head, each.number) for head, each in zip(heads, origins, strict=True) if len(head) >= SHORT]
        sources = [ints(row[IDS]) for row in rows]
        for column in columns:
            # Where labels and sources are made of one column, as in dialogues, those of another row are meant.
            own = subject.need("tokenizer")([texts[each.number][column][:LETTERS] for each in origins])["input_ids"]
            held = [_held(_head(subject, ints(each)), source) for each, source in zip(own, sources, strict=True)]
            if sum(held) * 2 > len(held):
                continue
            finding = _judge(subject, column, texts, long)
            if finding is not None:
                return finding
    raise NotChecked("the texts that labels were made of are not known, or no column gives the labels")


def _texts(lineage: Lineage) -> dict[int, Row]:
    """Return the source rows by number, as far as they are few enough to look at."""
    last = max((each.number for each in lineage.origins[:ROWS]), default=-1)
    found = {each.number: each.source for each in lineage.origins[:ROWS]}
    for number in range(min(SOURCES, last + SOURCES)):
        row = lineage.sources(number)
        if row is None:
            break
        found[number] = row
    return {number: flat(row) for number, row in found.items() if isinstance(row, Mapping)}


def _held(head: Sequence[int], source: Sequence[int]) -> bool:
    """Tell whether a source holds the beginning of a text. Its first token may have merged with what stands before."""
    return len(head) > 1 and find(head[1:], source) is not None


def _head(subject: Subject, ids: Sequence[int]) -> tuple[int, ...]:
    return tuple(body_of(subject, ids)[:HEAD])


def _judge(
    subject: Subject, column: str, texts: Mapping[int, Row], rows: Sequence[tuple[tuple[int, ...], int]]
) -> Finding | None:
    """Return a finding if most labels are texts of a column, of their own row or of another."""
    tokenizer = subject.need("tokenizer")
    numbers = list(texts)
    said = [texts[number][column][:LETTERS] for number in numbers]
    try:
        ids = tokenizer(text_target=said)["input_ids"]
    except (TypeError, ValueError):
        ids = tokenizer(said)["input_ids"]
    places: dict[tuple[int, ...], list[int]] = {}
    for number, each in zip(numbers, ids, strict=True):
        places.setdefault(_head(subject, ints(each)), []).append(number)
    known = [(head, number, places[head]) for head, number in rows if head in places]
    if not rows or len(known) < MOST * len(rows):
        return None
    foreign = [(head, number, found[0]) for head, number, found in known if number not in found]
    if len(foreign) < MOST * len(known):
        return passed(f"{len(known) - len(foreign)} of {len(known)} rows have the target of their own source")
    step, times = Counter(other - number for _, number, other in foreign).most_common(1)[0]
    _, number, other = foreign[0]
    how = (
        f"each has that of the row {abs(step)} {'after' if step > 0 else 'before'} it: one of both lists was moved"
        if times >= MOST * len(foreign)
        else "sources and targets were sorted, filtered or shuffled apart: reorder both together"
    )
    return fail(
        f"the labels of {len(foreign)} of {len(known)} rows are the target of another row",
        cause=f"{how}. The loss falls all the same, because the model learns to write likely targets",
        measured=len(foreign),
        expected=0,
        example=Example(
            ("column", "row", "text"),
            [
                *((name, number, str(texts[number][name])[:200]) for name in text_columns(list(texts.values()))),
                ("labels", other, str(texts[other][column])[:200]),
            ],
            marked=(len(text_columns(list(texts.values()))),),
            caption=f"row {number} of the source data, and what its labels hold",
        ),
    )
