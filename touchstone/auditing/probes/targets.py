"""Probes of translation and summarization: what the decoder reads, and what its targets are."""

from __future__ import annotations

from collections import Counter
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.pairs import outputs_of, place_of
from touchstone.auditing.reading.targets import body_of, end_ids, first_batch, likeness, target_column, targets_of
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Subject, ints

GROUP = "translation and summarization"


@probe(
    "decoder-input-shifted",
    group=GROUP,
    says="The decoder's input is the labels moved by one place, after the token that generation starts with.",
    tasks=SEQ2SEQ,
)
def decoder_input_shifted(subject: Subject) -> Finding:
    """Run the model on a batch, catch what its decoder receives, and compare it with the labels.

    Fault: The decoder is given the token that it must predict, or other tokens than the ones before. Or its first
    token in training is not the one that generation starts with.

    Causes: A collator sets `decoder_input_ids = labels`. Or it shifts them by hand, with another start token than the
    model's decoder_start_token_id.

    Remedy: Leave decoder_input_ids out: models of transformers make them from labels. With
    `DataCollatorForSeq2Seq(tokenizer, model=model)` they come from the model.

    Warning: Some decoder inputs are replaced, which is right only for noise on purpose. Or training starts with the
    beginning of text or with differing tokens, and generation with another one.
    """
    train = subject.need("train")
    batch = first_batch(train, 4)
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
    if wrapped == sum(starts.values()) and start not in end_ids(subject):
        return passed(f"the decoder's input is the labels moved round by one place, beginning with {text} ({start})")
    expected = subject.token_texts([wanted_start])[0]
    parts: dict[str, Any] = {"measured": start, "expected": wanted_start, "example": example}
    message = (
        f"the decoder's input begins with {text} ({start}) in training, with {expected} ({wanted_start}) in generation"
    )
    cause = "the first generated token depends on a beginning that was never trained: make both decoder_start_token_id"
    plain = sum(count for each, count in starts.items() if each not in subject.special_ids)
    if plain == sum(starts.values()) and _headless(subject):
        return fail(
            f"the decoder's input begins with the target's own first token, which has no label; generation begins with "
            f"{expected} ({wanted_start})",
            cause="labels are the target without its first token, and decoder_input_ids the target without its last: "
            "the model never learns to begin. Give the model the whole target as labels, and no decoder_input_ids" + at,
            measured=plain,
            expected=0,
            example=example,
        )
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
    """Look at the last label of each row.

    Fault: No target ends with the end token. The model never learns to stop, and its outputs run on until the maximal
    length.

    Causes: Targets are tokenized with add_special_tokens=False, or the last id is cut off. Or the padding token is the
    end token, and -100 is set at all of them.

    Remedy: Tokenize with `tokenizer(text_target=targets, truncation=True)`, which keeps the end token after
    truncation, and set -100 by the attention mask.

    Warning: Some targets have no end token. Usually they have the greatest length and were cut after the tokenizer;
    let the tokenizer cut them.
    """
    ends = end_ids(subject)
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
        cause=cause + targets.at,
        measured=0,
        expected=len(rows),
        example=Example(
            ("label",),
            [(each,) for each in subject.token_texts(labels)],
            marked=(len(labels) - 1,),
            caption="the last labels of a training row",
        ),
    )


@probe(
    "target-tokenized-as-target",
    group=GROUP,
    says="Targets are tokenized with the vocabulary of the target language.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def target_tokenized_as_target(subject: Subject) -> Finding:
    """Compare labels with both ways of tokenizing their text, where the tokenizer has two.

    Fault: Targets went through the source side of a tokenizer with two languages. Words become unknown or odd pieces,
    and the model learns these.

    Causes: The target is passed as the first argument, `tokenizer(targets)`, as if it were a source.

    Remedy: Pass it by name: `tokenizer(sources, text_target=targets)`.
    """
    targets = targets_of(subject, subject.need("train"))
    column = target_column(subject, targets)
    differ = [index for index, (a, b) in enumerate(zip(column.full, column.plain, strict=True)) if a != b]
    if not differ:
        return passed("the tokenizer makes the same ids of sources and targets")
    as_source = [
        index
        for index in differ
        if likeness(targets.rows[index].labels, column.plain[index])
        > likeness(targets.rows[index].labels, column.full[index]) + 0.05
    ]
    if len(as_source) < 0.9 * len(differ):
        return passed(f"{len(differ) - len(as_source)} of {len(differ)} targets are tokenized as targets")
    index = as_source[0]
    return fail(
        f"{len(as_source)} of {len(differ)} targets are tokenized as if they were sources",
        cause=f"the tokenizer has two modes, and the column {column.name!r} went through that of the source: call "
        f"tokenizer(text_target=...){targets.at}",
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


def _headless(subject: Subject) -> bool:
    """Tell whether labels are targets without their first token."""
    try:
        targets = targets_of(subject, subject.need("train"))
        column = target_column(subject, targets)
    except NotChecked:
        return False
    lost = [
        any(body_of(subject, row.labels) == body_of(subject, ids)[1:] for ids in (full, plain))
        for row, full, plain in zip(targets.rows, column.full, column.plain, strict=True)
    ]
    return sum(lost) >= 0.9 * len(lost)


def _need_shifted(subject: Subject) -> None:
    """Leave it to the probe of the decoder's input if that is wrong, too."""
    try:
        shifted = decoder_input_shifted(subject).outcome != "fail"
    except NotChecked:
        return
    if not shifted:
        raise NotChecked("the decoder's input is not the labels moved by one place: see decoder-input-shifted")


@probe(
    "target-whole",
    group=GROUP,
    says="Labels hold the whole target: it is not cut by the source's length, and no token is lost.",
    tasks=SEQ2SEQ,
    budget="fast",
)
def target_whole(subject: Subject) -> Finding:
    """Compare the length of labels with that of the whole tokenized target.

    Fault: Every target is cut to the length of its own source, or lacks its first token.

    Causes: Labels are padded or sliced to the shape of input_ids. Or labels are moved by one place before the model,
    which moves them itself.

    Remedy: Give targets a maximal length of their own, `tokenizer(text_target=targets, max_length=128,
    truncation=True)`, and pass the whole target as labels.

    Warning: More than 10% of the targets are cut to a maximal length. The model learns to end, or to break off, too
    early: raise the limit.
    """
    targets = targets_of(subject, subject.need("train"))
    column = target_column(subject, targets)
    cut: list[int] = []
    headless: list[int] = []
    lost = total = 0
    for index, (row, full, plain) in enumerate(zip(targets.rows, column.full, column.plain, strict=True)):
        ids = full if likeness(row.labels, full) >= likeness(row.labels, plain) else plain
        labels, whole = body_of(subject, row.labels), body_of(subject, ids)
        total += len(whole)
        if labels and len(labels) < len(whole):
            lost += len(whole) - len(labels)
            if labels == whole[: len(labels)]:
                cut.append(index)
            elif labels == whole[len(whole) - len(labels) :] and len(whole) - len(labels) <= 2:
                headless.append(index)
    count = len(targets.rows)
    if len(headless) >= 0.9 * count:
        _need_shifted(subject)
        row = targets.rows[headless[0]]
        return fail(
            f"in {len(headless)} of {count} rows the first token of {column.name!r} has no label",
            cause="labels are moved by one place before the model, which moves them once more: give the model the "
            f"whole target as labels{targets.at}",
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
            f"give targets a maximal length of their own{targets.at}",
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
            f"maximal length{targets.at}",
            measured=len(cut),
            expected=0,
        )
    return passed(f"{count - len(cut)} of {count} targets are whole", measured=len(cut))
