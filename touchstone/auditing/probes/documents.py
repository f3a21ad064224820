"""Probes of causal language modelling: ends of texts, borders between them, and chunks."""

from __future__ import annotations

from dataclasses import replace

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.next_tokens import batch_of_one, data_shift, labelled_pairs, pairs_in
from touchstone.auditing.reading.pairs import Pair, has_column, outputs_of, text_columns, tokenizing
from touchstone.auditing.subject import IGNORED, MapCall, Subject, ints

TASKS = ("causal-lm",)
GROUP = "causal language modelling"
DOCUMENTS = 64


@probe(
    "end-of-text-supervised",
    group=GROUP,
    says="The end of a text has a label, so that the model learns to stop.",
    tasks=TASKS,
    budget="fast",
)
def end_of_text_supervised(subject: Subject) -> Finding:
    """Look for the labels of real end-of-text tokens, also where the same token pads.

    Fault: The end of a text never has a label. The model is never taught to stop, and generates up to the maximal
    length.

    Causes: The padding token is the end-of-text token (`tokenizer.pad_token = tokenizer.eos_token`), and labels are
    set to -100 at every padding id, the real end included (transformers#23530).

    Remedy: Give the tokenizer a padding token of its own, `tokenizer.add_special_tokens({'pad_token': '<pad>'})`, and
    resize the embeddings. Or set labels to -100 where attention_mask is 0.

    Warning: No row holds an end of text, or only some ends have a label. Append `tokenizer.eos_token` to each text
    before it is tokenized.
    """
    tokenizer = subject.need("tokenizer")
    end = getattr(tokenizer, "eos_token_id", None)
    if end is None:
        raise NotChecked("the tokenizer has no end-of-text token")
    pairs = labelled_pairs(subject)
    shift = data_shift(pairs)
    with_label = without = rows_with = 0
    found: tuple[Pair, int] | None = None
    for pair in pairs:
        tokens = pair.original if pair.original is not None else pair.ids
        real = list(pair.real)
        # Where padding is not marked, a row that ends with the token several times may be padded with it.
        if len(real) > 1 and tokens[real[-1]] == tokens[real[-2]] == end:
            while real and tokens[real[-1]] == end:
                real.pop()
        ends = [place for place in real[1:] if tokens[place] == end and tokens[place - 1] != end]
        rows_with += bool(ends)
        for place in ends:
            slot = place - shift
            if slot < 1 or pair.labels[slot - 1] == IGNORED:
                continue  # the text before it is no target, such as a prompt
            if pair.labels[slot] == end:
                with_label += 1
            else:
                without += 1
                found = found or (pair, place)
    text = subject.token_texts([end])[0]
    if not rows_with:
        lengths = {len(pair.real) for pair in pairs}
        if len(pairs) > 4 and len(lengths) == 1:
            raise NotChecked(f"no row holds {text}: see documents-separated")
        return warn(
            f"no row holds the end of text {text}",
            cause="the model never sees where a text ends, so it will not learn to stop: append tokenizer.eos_token to "
            "each text before it is tokenized",
            measured=0,
        )
    if not without:
        return passed(f"{with_label} ends of text have their label", measured=with_label)
    if with_label:
        return warn(
            f"{without} of {with_label + without} ends of text have no label",
            cause="the model learns to stop at some texts only: look at how their labels are made",
            measured=without,
            expected=0,
        )
    assert found is not None
    pair, place = found
    cause = f"the label of {text} is -100 wherever a text ends, so the model never learns to stop"
    if getattr(tokenizer, "pad_token_id", None) == end:
        cause += (
            ": the padding token is the end of text, and the collator takes every padding token for padding "
            "(transformers#23530); give the tokenizer a padding token of its own, or mask by attention_mask"
        )
    else:
        cause += ": give it a label like any other token"
    start = max(0, place - 6)
    cells = [
        (token, "-100" if label == IGNORED else subject.token_texts([label])[0])
        for token, label in zip(
            subject.token_texts(pair.ids[start : place + 4]), pair.labels[start : place + 4], strict=True
        )
    ]
    return fail(
        f"none of {without} ends of text ({text}) has a label",
        cause=cause,
        measured=0,
        expected=without,
        example=Example(("token", "label"), cells, marked=(place - start,), caption="the end of a training row"),
    )


def chunking(subject: Subject) -> MapCall | None:
    """Return the observed call that made other rows of token ids out of most rows of token ids."""
    for call in subject.maps:
        call.need_dicts()
    calls = [
        call
        for call in subject.maps
        if call.batched and has_column(call.source, "input_ids") and has_column(call.result, "input_ids")
        if len(call.source)
        if len(call.source) != len(call.result) or len(call.source[0]["input_ids"]) != len(call.result[0]["input_ids"])
    ]
    return max(calls, key=lambda call: len(call.source), default=None)


def joins_rows(call: MapCall) -> bool:
    """Say whether a function on a batch puts several source rows into one row."""
    for count in (2, 8, DOCUMENTS):
        indices = range(min(count, len(call.source)))
        together = [ints(row["input_ids"]) for row in call.apply(indices)]
        if together:
            apart = [ints(row["input_ids"]) for index in indices for row in call.apply([index])]
            return together != apart
    return False


@probe(
    "documents-separated",
    group=GROUP,
    says="Documents that share a row have an end of text between them.",
    tasks=TASKS,
    budget="fast",
)
def documents_separated(subject: Subject) -> Finding:
    """Look for special tokens at the borders of documents that are joined, and for texts that see their neighbours.

    Fault: Position ids begin anew in each text of a packed row, but attention still reaches the texts before. The
    model reads unrelated texts as its context.

    Causes: Rows are packed for attention that reads position_ids (FlashAttention), and the model runs with another
    implementation, which needs a mask.

    Remedy: Use an attention implementation that keeps packed texts apart, or pass a block-diagonal mask. Otherwise
    number positions through the row.

    Warning: Documents are joined without an end of text between them. The model learns that one goes on in the next:
    append `tokenizer.eos_token` to each document before joining.
    """
    leak = _packed_leak(subject)
    if leak is not None:
        return leak
    special = subject.special_ids
    call = chunking(subject)
    if call is None:
        pairs = pairs_in(subject, subject.need("train"))
        made = tokenizing(subject.maps)
        if made and not (made[-1].batched and joins_rows(made[-1])):
            return passed("each row comes from one document: map joins no rows")
        if any(special & {pair.ids[place] for place in pair.real} for pair in pairs):
            return passed("rows hold special tokens")
        if len(pairs) < 5 or len({len(pair.real) for pair in pairs}) > 1:
            raise NotChecked(
                "it is not known what the rows were made of: no call of Dataset.map that joins them was seen"
            )
        return warn(
            f"all rows are {len(pairs[0].real)} tokens long, and none of {len(pairs)} holds an end of text",
            cause="if documents are joined, the model learns that one document goes on in the next: append "
            "tokenizer.eos_token to each document before they are joined",
        )
    if not joins_rows(call):
        return passed("each row comes from one document: chunks are cut from one document at a time")
    count = min(len(call.source), 200)
    rows = [ints(call.source[index]["input_ids"]) for index in range(count)]
    marked = [bool(ids) and (ids[0] in special or ids[-1] in special) for ids in rows]
    if all(marked):
        return passed(f"all of {count} documents begin or end with a special token")
    return warn(
        f"{count - sum(marked)} of {count} documents that are joined have no special token at either end",
        cause="the model learns that one document goes on in the next, and never learns where a text ends: append "
        f"tokenizer.eos_token to each document before they are joined ({call.where})",
        measured=count - sum(marked),
        expected=0,
    )


def _packed_leak(subject: Subject) -> Finding | None:
    """Return a finding if positions begin anew in each text of a row, but texts see the texts before them."""
    import torch

    batch = batch_of_one(subject.need("train"))
    positions = batch.get("position_ids")
    if positions is None or "input_ids" not in batch or positions.shape != batch["input_ids"].shape:
        return None
    starts = [place for place, each in enumerate(ints(positions[0])) if each == 0 and place > 1]
    if not starts or starts[0] + 2 > positions.shape[1]:
        return None
    start = starts[0]
    count = len(positions)
    inputs = {
        key: value[:1]
        for key, value in batch.items()
        if key != "labels" and isinstance(value, torch.Tensor) and value.dim() and len(value) == count
    }
    ids = inputs["input_ids"]
    other = ids.clone()
    other[0, :start] = torch.where(ids[0, :start] == ids[0, start], ids[0, start + 1], ids[0, start])
    if torch.equal(other, ids):
        return None
    try:
        before, after = (
            outputs_of(subject.quiet_model, {**inputs, "input_ids": each}).get("logits") for each in (ids, other)
        )
    except NotChecked:
        return None  # attention of another device
    if before is None or after is None or before.dim() != 3 or before.shape[1] != ids.shape[1]:
        return None
    end = starts[1] if len(starts) > 1 and starts[1] > start + 1 else start + 2
    moved = float((before[0, start:end] - after[0, start:end]).abs().max())
    if moved <= 1e-4 * (float(before.std()) or 1.0):
        return None
    return fail(
        f"positions begin anew in each text of a row, but the logits of a text move by {moved:.3g} when the text "
        "before it changes",
        cause="the attention mask lets texts see the other texts of their row: mask them from each other (a "
        "block-diagonal mask, or attention that reads position_ids), or number positions through the row",
        measured=moved,
        expected=0.0,
    )


@probe(
    "chunking-loses-nothing",
    group=GROUP,
    says="Cutting documents into chunks loses no more than a remainder.",
    tasks=(*TASKS, "masked-lm"),
    budget="fast",
)
def chunking_loses_nothing(subject: Subject) -> Finding:
    """Count the tokens that go into the function that makes chunks, and those that come out.

    Fault: Whole chunks of tokens are lost where documents are joined and cut. That is more than the remainder at the
    end, which is usually dropped.

    Causes: The loop that cuts stops one chunk early, steps too far, or the batch of map is smaller than one chunk, so
    that no row comes out at all.

    Remedy: Cut with `for start in range(0, total, size)`, where `total = len(ids) // size * size`, and use a large
    batch_size in map.

    Warning: More than 10% of the tokens are lost, because texts are truncated or remainders of short batches are
    dropped. Raise max_length, or join documents before cutting.
    """
    call = chunking(subject)
    if call is None:
        return _tokenizing_loss(subject)
    size = call.options.get("batch_size", 1000)
    given = range(len(call.source) if size is None or size <= 0 else min(int(size), len(call.source)))
    if len(given) > 2000:
        raise NotChecked(f"map works on batches of {len(given)} rows: too many to repeat")
    rows = call.apply(given)
    before = sum(len(call.source[index]["input_ids"]) for index in given)
    after = sum(len(row["input_ids"]) for row in rows)
    if not rows:
        return fail(
            f"no row comes out of the first {len(given)} rows",
            cause=f"a batch of map holds fewer tokens ({before}) than one chunk: make batch_size of map larger, or "
            f"chunks shorter ({call.where})",
            measured=0,
        )
    block = max(len(row["input_ids"]) for row in rows)
    lost = before - after
    text = f"{lost} of {before} tokens ({lost / before:.1%}) of a batch of {len(given)} rows are lost"
    if lost < 0:
        return passed(f"{before} tokens become {after}: chunks overlap or are padded", measured=lost)
    if lost >= block and joins_rows(call):
        return fail(
            f"{text}, in chunks of {block}",
            cause=f"documents are joined, so no more than the remainder of a batch, {block - 1} tokens, need be lost: "
            f"look at the bounds of the loop that cuts chunks ({call.where})",
            measured=lost,
            expected=f"less than {block}",
        )
    if lost / before > 0.1:
        return warn(
            text,
            cause=f"tokens that do not fill a chunk of {block} are dropped: join documents before cutting, or keep "
            f"short rows ({call.where})",
            measured=round(lost / before, 4),
        )
    return _cut_before(subject) or passed(text, measured=lost)


def _cut_before(subject: Subject) -> Finding | None:
    """Return a warning if texts are truncated before they are joined and cut into chunks."""
    try:
        earlier = _tokenizing_loss(subject)
    except NotChecked:
        return None
    if earlier.outcome == "pass":
        return None
    return replace(
        earlier,
        message=f"{earlier.message} before chunks are made",
        cause="texts are truncated where they are tokenized, and chunks are cut later all the same: tokenize without "
        "truncation",
    )


def _tokenizing_loss(subject: Subject) -> Finding:
    """Count the tokens that are cut off where rows are tokenized."""
    tokenizer = subject.need("tokenizer")
    calls = tokenizing(subject.maps)
    if not calls:
        raise NotChecked("no call of Dataset.map that makes token ids was seen")
    call = next((each for each in calls if len(each.source) > 0), calls[-1])
    count = min(len(call.source), 100)
    columns = text_columns([dict(call.source[index]) for index in range(count)])
    if len(columns) != 1:
        raise NotChecked(f"which of the columns {', '.join(columns) or '(none)'} is the text is not known")
    texts = [call.source[index][columns[0]] for index in range(count)]
    before = sum(len(ids) for ids in tokenizer(texts, truncation=False)["input_ids"])
    after = sum(len(ints(row["input_ids"])) for row in call.apply(range(count)))
    lost = max(0, before - after)
    text = f"{lost} of {before} tokens ({lost / max(before, 1):.1%}) of {count} texts are lost"
    if lost > 0.1 * before:
        return warn(
            text,
            cause="texts longer than the limit are cut, or short ones dropped: raise max_length, or return and keep "
            f"the overflowing tokens ({call.where})",
            measured=round(lost / before, 4),
        )
    return passed(text, measured=lost)
