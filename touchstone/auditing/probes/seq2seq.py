"""Probes of translation and summarization: decoder inputs, targets, ends, prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.pairs import (
    loss_of,
    outputs_of,
    place_of,
    rows_of_split,
    sourced_rows,
    text_columns,
)
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Batch, Split, Subject, ints

GROUP = "translation and summarization"
ROWS = 48
FEW = 4
"""Fewer rows than these tell nothing."""
SOURCE_NAMES = {"source", "src", "input", "document", "article", "text", "dialogue", "question"}
TARGET_NAMES = {"target", "tgt", "output", "summary", "highlights", "headline", "answer", "label"}


@dataclass(frozen=True)
class SourceAndLabels:
    """One row after the collator: its source and its labels, both without padding."""

    source: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Targets:
    """Rows of a split: what the collator makes of them, and the columns that they come from.

    Args:
        rows: the collated rows.
        texts: the text columns that each row comes from; empty where they are not known.
        where: `file:line` of the call of map that tokenized them.
    """

    rows: list[SourceAndLabels]
    texts: list[dict[str, str]]
    where: str = ""


def targets_of(subject: Subject, split: Split) -> Targets:
    """Return some rows of a split with their sources, labels and texts."""
    return subject.once(f"targets of {split.name}", lambda: _targets(subject, split))


def _targets(subject: Subject, split: Split) -> Targets:
    found = sourced_rows(subject, split, ROWS) if hasattr(split.dataset, "__len__") and len(split) else None
    try:
        rows = rows_of_split(split, ROWS) if found is None else found[0]
        size = max(1, min(split.batch_size, 16))
        batches = [split.batch(rows[start : start + size]) for start in range(0, len(rows), size)]
        known = bool(batches) and "labels" in batches[0]
    except NotChecked:
        known = False
        if not split.observed:
            raise
    made = [each for batch in (batches if known else split.observed) for each in _sources_and_labels(batch)]
    if not known or found is None or len(made) != len(found[1]):
        return Targets(made, [])
    sources, where = found[1], found[2]
    columns = text_columns(sources)
    return Targets(made, [{column: source[column] for column in columns} for source in sources], where)


def _sources_and_labels(batch: Batch) -> list[SourceAndLabels]:
    if "labels" not in batch or "input_ids" not in batch:
        raise NotChecked("batches have no input_ids or no labels")
    masks = batch.get("attention_mask")
    made = []
    for index in range(len(batch["input_ids"])):
        ids = ints(batch["input_ids"][index])
        mask = ints(masks[index]) if masks is not None else [1] * len(ids)
        labels = [each for each in ints(batch["labels"][index]) if each != IGNORED]
        made.append(SourceAndLabels([each for each, kept in zip(ids, mask, strict=True) if kept], labels))
    return made


def _first_batch(split: Split, count: int) -> Batch:
    """Return a batch of a few rows, or the first rows of an observed one."""
    if split.observed and "labels" in split.observed[0]:
        return {key: value[:count] for key, value in split.observed[0].items() if hasattr(value, "shape")}
    return split.batch(rows_of_split(split, count))


@dataclass(frozen=True)
class TargetColumn:
    """The column that labels were made of, and how labels differ from its tokens.

    Args:
        name: the column.
        full: the ids of the whole texts, as the tokenizer makes them of a target.
        plain: the ids of the whole texts, as the tokenizer makes them of a source.
    """

    name: str
    full: list[list[int]]
    plain: list[list[int]]


def target_column(subject: Subject, targets: Targets) -> TargetColumn:
    """Find the column that labels were made of.

    Raises:
        NotChecked: no observed column gives the labels.
    """
    if not targets.texts or not targets.texts[0]:
        raise NotChecked(
            "the texts that labels were made of are not known: no call of Dataset.map that keeps rows was seen"
        )
    tokenizer = subject.need("tokenizer")
    best: tuple[float, TargetColumn | None] = (0.0, None)
    for name in targets.texts[0]:
        texts = [each[name] for each in targets.texts]
        plain = [ints(each) for each in tokenizer(texts)["input_ids"]]
        try:
            full = [ints(each) for each in tokenizer(text_target=texts)["input_ids"]]
        except (TypeError, ValueError):
            full = plain
        column = TargetColumn(name, full, plain)
        score = max(
            sum(_likeness(row.labels, each) for row, each in zip(targets.rows, ids, strict=True)) / len(targets.rows)
            for ids in (full, plain)
        )
        if score > best[0]:
            best = score, column
    if best[1] is None or best[0] < 0.7:
        raise NotChecked("no column of the data gives the labels when it is tokenized")
    return best[1]


def _likeness(labels: Sequence[int], ids: Sequence[int]) -> float:
    """Return the share of labels that stand in the ids in the same order, from either end or moved by a few places."""
    if not labels:
        return 0.0
    # Beginning anywhere in the first places, so that a lost first token does not hide the column.
    return max(
        sum(a == b for a, b in zip(labels, ids[start:], strict=False)) / len(labels)
        for start in range(min(4, len(ids)) or 1)
    )


def _body(subject: Subject, ids: Sequence[int]) -> list[int]:
    """Return ids without the special tokens at both ends."""
    special = subject.special_ids
    start, end = 0, len(ids)
    while start < end and ids[start] in special:
        start += 1
    while end > start and ids[end - 1] in special:
        end -= 1
    return list(ids[start:end])


@probe(
    "decoder-input-shifted",
    group=GROUP,
    says="The decoder's input is the labels moved by one place, after the token that generation starts with.",
    tasks=SEQ2SEQ,
)
def decoder_input_shifted(subject: Subject) -> Finding:
    """Run the model on a batch, catch what its decoder receives, and compare it with the labels."""
    train = subject.need("train")
    batch = _first_batch(train, 4)
    if "labels" not in batch:
        raise NotChecked("batches have no labels")
    decoder = _decoder_ids(subject, batch)
    labels = [ints(each) for each in batch["labels"]]
    moved = same = total = agree = 0
    starts: Counter[int] = Counter()
    wrapped = 0
    for given, wanted in zip(decoder, labels, strict=True):
        places = [place for place, each in enumerate(wanted) if each != IGNORED and place < len(given)]
        if not places:
            continue
        starts[given[places[0]]] += 1
        wrapped += given[places[0]] in wanted[places[-1] : places[-1] + 1]
        for place in places[1:]:
            if wanted[place - 1] == IGNORED:
                continue
            total += 1
            moved += given[place] == wanted[place - 1]
            same += given[place] == wanted[place]
            agree += wanted[place] == wanted[place - 1]
    if total < 8:
        raise NotChecked(f"only {total} labels can be compared with the decoder's input")
    where = place_of(train.collate)
    at = f" ({where})" if where else ""
    example = _shift_example(subject, decoder[0], labels[0])
    if same >= 0.95 * total and moved < 0.95 * total:
        return fail(
            f"{same / total:.0%} of the decoder's inputs are the very token that the decoder must predict there",
            cause="decoder_input_ids are the labels themselves, so the model learns to copy its input: move them by "
            f"one place, or leave decoder_input_ids out and the model makes them of labels{at}",
            measured=round(same / total, 4),
            expected=0,
            example=example,
        )
    if moved < 0.5 * total:
        return fail(
            f"only {moved / total:.0%} of the decoder's inputs are the label before",
            cause="the decoder is given other tokens than those that come before the label: leave decoder_input_ids "
            f"out, and the model makes them of labels{at}",
            measured=round(moved / total, 4),
            expected=1.0,
            example=example,
        )
    if moved < 0.95 * total:
        return warn(
            f"{moved / total:.0%} of the decoder's inputs are the label before",
            cause="the others are replaced: this is right only if noise in the decoder's input is meant",
            measured=round(moved / total, 4),
            example=example,
        )
    start = starts.most_common(1)[0][0]
    wanted_start = _generation_start(subject)
    text = subject.token_texts([start])[0]
    if wanted_start is None or start == wanted_start:
        return passed(
            f"the decoder's input is the labels moved by one place, after {text} ({start})", measured=moved / total
        )
    if wrapped == sum(starts.values()) and start not in _end_ids(subject):
        return passed(f"the decoder's input is the labels moved round by one place, beginning with {text} ({start})")
    expected = subject.token_texts([wanted_start])[0]
    parts: dict[str, Any] = {"measured": start, "expected": wanted_start, "example": example}
    message = (
        f"the decoder's input begins with {text} ({start}) in training, with {expected} ({wanted_start}) in generation"
    )
    cause = "the first generated token depends on a beginning that was never trained: make both decoder_start_token_id"
    if start == getattr(subject.tokenizer, "bos_token_id", None) or len(starts) > 1:
        return warn(message, cause=cause + at, **parts)
    return fail(message, cause=cause + at, **parts)


def _shift_example(subject: Subject, decoder: list[int], labels: list[int]) -> Example:
    texts = subject.token_texts(decoder[:16])
    wanted = ["-100" if each == IGNORED else subject.token_texts([each])[0] for each in labels[: len(texts)]]
    return Example(
        ("decoder input", "label"), list(zip(texts, wanted, strict=False)), caption="a row of a training batch"
    )


def _decoder_ids(subject: Subject, batch: dict[str, Any]) -> list[list[int]]:
    """Return the ids that the decoder receives when the model runs on a batch."""
    import torch

    model = subject.quiet_model
    caught: list[Any] = []

    def catch(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named.get("input_ids", given[0] if given else None)
        if isinstance(ids, torch.Tensor) and not caught:
            caught.append(ids.detach().clone())

    get = getattr(model, "get_decoder", None)
    decoder = get() if callable(get) else getattr(model, "decoder", None)
    if decoder is not None:
        handle = decoder.register_forward_pre_hook(catch, with_kwargs=True)
        try:
            outputs_of(model, batch)
        finally:
            handle.remove()
    ids = caught[0] if caught else batch.get("decoder_input_ids")
    if ids is None:
        raise NotChecked("what the decoder receives cannot be seen")
    return [ints(each) for each in ids]


def _generation_start(subject: Subject) -> int | None:
    for name in ("generation_config", "config"):
        value = getattr(getattr(subject.model, name, None), "decoder_start_token_id", None)
        if isinstance(value, int):
            return value
    return None


@probe(
    "target-ends",
    group=GROUP,
    says="Each target ends with the end token, so that the model learns to stop.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def target_ends(subject: Subject) -> Finding:
    """Look at the last label of each row."""
    ends = _end_ids(subject)
    if not ends:
        raise NotChecked("neither tokenizer nor configuration names an end token")
    targets = targets_of(subject, subject.need("train"))
    rows = [row for row in targets.rows if row.labels]
    pad = getattr(subject.tokenizer, "pad_token_id", None)
    without = []
    for row in rows:
        labels = list(row.labels)
        while len(labels) > 1 and labels[-1] == pad and pad not in ends:
            labels.pop()
        # Multilingual models put the language after the end.
        if not ends & set(labels[-2:] if labels[-1] in subject.special_ids else labels[-1:]):
            without.append(row)
    name = subject.token_texts([min(ends)])[0]
    if not without:
        return passed(f"all of {len(rows)} targets end with {name}", measured=len(rows))
    longest = max(len(row.labels) for row in rows)
    if len(without) < len(rows):
        cut = sum(len(row.labels) == longest for row in without)
        return warn(
            f"{len(without)} of {len(rows)} targets do not end with {name}",
            cause=f"{cut} of them have the greatest length, {longest}: they are cut behind the tokenizer, which would "
            f"have kept the end token ({targets.where or 'use truncation=True'})",
            measured=len(without),
            expected=0,
        )
    cause = f"no target tells where it stops, so the model goes on until the maximal length: keep {name} at the end"
    if pad in ends:
        cause += "; the padding token is the end token, and masking all padding tokens masks the end too"
    else:
        cause += " (add_special_tokens=True; do not cut the last id)"
    labels = without[0].labels[-12:]
    return fail(
        f"none of {len(rows)} targets ends with {name}",
        cause=cause + (f" ({targets.where})" if targets.where else ""),
        measured=0,
        expected=len(rows),
        example=Example(
            ("label",),
            [(each,) for each in subject.token_texts(labels)],
            marked=(len(labels) - 1,),
            caption="the last labels of a training row",
        ),
    )


def _end_ids(subject: Subject) -> set[int]:
    found: set[int] = set()
    for part in (
        subject.tokenizer,
        getattr(subject.model, "config", None),
        getattr(subject.model, "generation_config", None),
    ):
        value = getattr(part, "eos_token_id", None)
        found |= {int(each) for each in (value if isinstance(value, (list, tuple)) else [value]) if each is not None}
    return found


@probe(
    "target-tokenized-as-target",
    group=GROUP,
    says="Targets are tokenized with the vocabulary of the target language.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def target_tokenized_as_target(subject: Subject) -> Finding:
    """Compare labels with both ways of tokenizing their text, where the tokenizer has two."""
    targets = targets_of(subject, subject.need("train"))
    column = target_column(subject, targets)
    differ = [index for index, (a, b) in enumerate(zip(column.full, column.plain, strict=True)) if a != b]
    if not differ:
        return passed("the tokenizer makes the same ids of sources and targets")
    as_source = [
        index
        for index in differ
        if _likeness(targets.rows[index].labels, column.plain[index])
        > _likeness(targets.rows[index].labels, column.full[index]) + 0.05
    ]
    if len(as_source) < 0.9 * len(differ):
        return passed(f"{len(differ) - len(as_source)} of {len(differ)} targets are tokenized as targets")
    index = as_source[0]
    return fail(
        f"{len(as_source)} of {len(differ)} targets are tokenized as if they were sources",
        cause=f"the tokenizer has two modes, and the column {column.name!r} went through that of the source: call "
        f"tokenizer(text_target=...) ({targets.where})",
        measured=len(as_source),
        expected=0,
        example=Example(
            ("labels", "as a target"),
            list(
                zip(
                    subject.token_texts(targets.rows[index].labels[:16]),
                    subject.token_texts(column.full[index][:16]),
                    strict=False,
                )
            ),
            caption=targets.texts[index][column.name][:100],
        ),
    )


@probe(
    "target-whole",
    group=GROUP,
    says="Labels hold the whole target: it is not cut by the source's length, and no token is lost.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def target_whole(subject: Subject) -> Finding:
    """Compare the length of labels with that of the whole tokenized target."""
    targets = targets_of(subject, subject.need("train"))
    column = target_column(subject, targets)
    cut: list[int] = []
    headless: list[int] = []
    lost = total = 0
    for index, (row, full, plain) in enumerate(zip(targets.rows, column.full, column.plain, strict=True)):
        ids = full if _likeness(row.labels, full) >= _likeness(row.labels, plain) else plain
        labels, whole = _body(subject, row.labels), _body(subject, ids)
        total += len(whole)
        if labels and len(labels) < len(whole):
            lost += len(whole) - len(labels)
            if labels == whole[: len(labels)]:
                cut.append(index)
            elif labels == whole[len(whole) - len(labels) :] and len(whole) - len(labels) <= 2:
                headless.append(index)
    count = len(targets.rows)
    if len(headless) >= 0.9 * count:
        row = targets.rows[headless[0]]
        return fail(
            f"in {len(headless)} of {count} rows the first token of {column.name!r} has no label",
            cause="labels are moved by one place before the model, which moves them once more: give the model the "
            f"whole target as labels ({targets.where})",
            measured=len(headless),
            expected=0,
            example=Example(
                ("label",),
                [(each,) for each in subject.token_texts(row.labels[:16])],
                caption=targets.texts[headless[0]][column.name][:100],
            ),
        )
    lengths = [len(targets.rows[index].labels) for index in cut]
    by_source = [index for index in cut if len(targets.rows[index].labels) == len(targets.rows[index].source)]
    if len(by_source) >= 3 and len(by_source) >= 0.9 * len(cut) and len(set(lengths)) > 1:
        index = by_source[0]
        return fail(
            f"{len(cut)} of {count} targets are cut to the length of their own source",
            cause=f"{lost} of {total} tokens of {column.name!r} are lost; a target may be longer: "
            f"give targets a maximal length of their own ({targets.where})",
            measured=len(cut),
            expected=0,
            example=Example(
                ("label", "target"),
                list(
                    zip(
                        subject.token_texts(targets.rows[index].labels),
                        subject.token_texts(column.full[index]),
                        strict=False,
                    )
                ),
                caption=targets.texts[index][column.name][:100],
            ),
        )
    if len(cut) > 0.1 * count:
        return warn(
            f"{len(cut)} of {count} targets are cut, mostly to {Counter(lengths).most_common(1)[0][0]} tokens",
            cause=f"{lost} of {total} tokens of {column.name!r} ({lost / total:.0%}) are lost: raise the targets' "
            f"maximal length ({targets.where})",
            measured=len(cut),
            expected=0,
        )
    return passed(f"{count - len(cut)} of {count} targets are whole", measured=len(cut))


@probe(
    "source-without-target",
    group=GROUP,
    says="The source does not hold the target.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def source_without_target(subject: Subject) -> Finding:
    """Look for the target's text in what the encoder receives, where the raw source does not hold it."""
    targets = targets_of(subject, subject.need("train"))
    held = seen = 0
    shown = ""
    bodies = [(_body(subject, row.source), _body(subject, row.labels)) for row in targets.rows]
    cut = _cut_sources(targets.rows)
    equal = 0
    raw_held = 0
    for index, (source, labels) in enumerate(bodies):
        if len(labels) < 3 or index in cut:
            continue
        seen += 1
        equal += source == labels
        inside = _plain(subject, labels) in _plain(subject, source)
        held += inside
        if inside and targets.texts:
            texts = sorted(targets.texts[index].values(), key=len)
            raw_held += any(_squeezed(a) in _squeezed(b) for at, a in enumerate(texts) for b in texts[at + 1 :])
        if inside and not shown:
            shown = " ".join(subject.token_texts(source))[:300]
    if seen < FEW:
        raise NotChecked("too few targets to look at")
    if held < 0.9 * seen:
        return passed(f"{held} of {seen} sources hold their target", measured=held)
    parts: dict[str, Any] = {"measured": held, "expected": 0}
    at = f" ({targets.where})" if targets.where else ""
    if not targets.texts:
        return warn(
            f"{held} of {seen} sources hold their whole target",
            cause="the model can copy the target; whether the data are so is not known: look at how sources are made"
            + at,
            **parts,
        )
    columns = list(targets.texts[0])
    if equal >= 0.9 * seen and len(columns) > 1:
        return fail(
            f"in {equal} of {seen} rows source and target are the same text",
            cause=f"both are made of one column, of {', '.join(columns)}: give text_target the other one{at}",
            **parts,
        )
    if raw_held >= 0.5 * held:
        return warn(
            f"{held} of {seen} sources hold their whole target, as the raw data do", cause="the model can copy", **parts
        )
    if len(columns) < 2:
        return warn(
            f"{held} of {seen} sources hold their whole target", cause="the model can copy the target" + at, **parts
        )
    return fail(
        f"{held} of {seen} sources hold their whole target, and the raw sources do not",
        cause=f"the target is joined to the source, so the model learns to copy it, and has nothing to copy later: "
        f"make sources of the source column only{at}",
        example=Example(("source",), [(shown,)], caption="what the encoder receives"),
        **parts,
    )


def _cut_sources(rows: Sequence[SourceAndLabels]) -> set[int]:
    """Return the rows whose source has the greatest length, so that it may be cut and have lost its target.

    They are looked at all the same if few others are left.
    """
    longest = max((len(row.source) for row in rows), default=0)
    cut = {index for index, row in enumerate(rows) if len(row.source) == longest}
    return cut if len(cut) > 1 and len(rows) - len(cut) >= FEW else set()


def _plain(subject: Subject, ids: Sequence[int]) -> str:
    return _squeezed(str(subject.need("tokenizer").decode(list(ids), skip_special_tokens=True)))


def _squeezed(text: str) -> str:
    return "".join(text.split())


@probe(
    "label-padding-ignored",
    group=GROUP,
    says="Padding of labels is -100, or the loss ignores it.",
    tasks=(*SEQ2SEQ, "causal-lm"),
)
def label_padding_ignored(subject: Subject) -> Finding:
    """Look for padding tokens at the end of labels, and see whether the loss depends on them."""
    import torch

    tokenizer = subject.need("tokenizer")
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        raise NotChecked("the tokenizer has no padding token")
    train = subject.need("train")
    batch = _first_batch(train, 8)
    if "labels" not in batch:
        raise NotChecked("batches have no labels")
    labels = torch.as_tensor(batch["labels"]).clone()
    end = 1 if pad == getattr(tokenizer, "eos_token_id", None) else 0
    count = 0
    for row in range(len(labels)):
        values = ints(labels[row])
        last = len(values)
        while last > 0 and values[last - 1] == pad:
            last -= 1
        if last + end < len(values):
            count += len(values) - last - end
            labels[row, last + end :] = IGNORED
    supervised = int((labels != IGNORED).sum())
    if not count:
        return passed("no padding token has a label", measured=0)
    where = place_of(train.collate)
    text = f"{count} padding tokens have a label, beside {supervised} real ones"
    try:
        losses = loss_of(subject, batch), loss_of(subject, {**batch, "labels": labels})
    except NotChecked as reason:
        return warn(text, cause=f"whether the loss ignores them is not known ({reason})", measured=count, expected=0)
    if abs(losses[0] - losses[1]) <= 1e-5 * abs(losses[1]):
        return passed(f"{text}, and the loss ignores them", measured=0)
    return fail(
        f"{text}, and the loss counts them",
        cause=f"the loss of {len(labels)} rows is {losses[0]:.4f} with them and {losses[1]:.4f} without, and learning "
        "to predict padding takes its place: set labels to -100 at padding, as DataCollatorForSeq2Seq does"
        + (f" ({where})" if where else ""),
        measured=round(losses[0], 4),
        expected=round(losses[1], 4),
    )


@probe(
    "source-prefix-same",
    group=GROUP,
    says="Sources of training and evaluation begin with the same prefix.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def source_prefix_same(subject: Subject) -> Finding:
    """Compare the tokens that all training sources begin with, with those of the evaluation."""
    train = [row.source for row in targets_of(subject, subject.need("train")).rows]
    if len(train) < 8:
        raise NotChecked("too few rows to tell a prefix")
    common = _common(train)
    if len(common) < 2:
        first = Counter(tuple(each[:3]) for each in train).most_common(1)[0]
        if 0.8 * len(train) <= first[1] < len(train):
            text = "".join(subject.token_texts(first[0]))
            return warn(
                f"{len(train) - first[1]} of {len(train)} sources do not begin with {text!r}, as the others do",
                cause="some sources have no prefix: add it to all of them",
                measured=first[1],
                expected=len(train),
            )
        return passed("sources have no common prefix")
    text = subject.need("tokenizer").decode(common)
    if subject.evaluation is None:
        return passed(f"all of {len(train)} sources begin with {text!r}")
    found = targets_of(subject, subject.evaluation)
    other = [row.source for row in found.rows]
    having = sum(each[: len(common)] == common for each in other)
    if having == len(other):
        return passed(f"sources of training and evaluation begin with {text!r}")
    parts: dict[str, Any] = {"measured": having, "expected": len(other)}
    cause = f"the model is evaluated on sources of another form than in training: prepare both alike ({found.where})"
    message = f"all training sources begin with {text!r}, and {having} of {len(other)} evaluation sources do"
    return fail(message, cause=cause, **parts) if having == 0 else warn(message, cause=cause, **parts)


def _common(rows: Sequence[list[int]]) -> list[int]:
    common: list[int] = []
    for values in zip(*rows, strict=False):
        if len(set(values)) > 1:
            break
        common.append(values[0])
    return common


@probe(
    "source-and-target-in-order",
    group=GROUP,
    says="Sources are made of the source column, and labels of the target column.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def source_and_target_in_order(subject: Subject) -> Finding:
    """Compare the names of the columns that sources and labels are made of."""
    targets = targets_of(subject, subject.need("train"))
    column = target_column(subject, targets)
    others = [name for name in targets.texts[0] if name != column.name]
    said = column.name.rsplit(".", 1)[-1].lower()
    if said in SOURCE_NAMES and any(name.rsplit(".", 1)[-1].lower() in TARGET_NAMES for name in others):
        return warn(
            f"labels are made of the column {column.name!r}, and the source of {', '.join(map(repr, others))}",
            cause=f"the names say the opposite: look whether source and target are exchanged ({targets.where})",
        )
    return passed(f"labels are made of the column {column.name!r}")
