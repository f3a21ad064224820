"""Probes of causal language modelling: shift, end of text, document borders, prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.pairs import (
    Pair,
    collated_pairs,
    has_column,
    labelled,
    loss_of,
    observed_pairs,
    outputs_of,
    place_of,
    rows_of_split,
    sourced_rows,
    text_columns,
    tokenizing,
)
from touchstone.auditing.subject import IGNORED, UNKNOWN, Batch, MapCall, Split, Subject, ints

TASKS = ("causal-lm",)
GROUP = "causal language modelling"
ROWS = 64
WIDTH = 24
CHOICES = 6
DOCUMENTS = 64


def pairs_in(subject: Subject, split: Split) -> list[Pair]:
    """Return some rows of a split beside their collated form."""

    def make() -> list[Pair]:
        try:
            rows = rows_of_split(split, ROWS)
        except NotChecked:
            if not split.observed:
                raise
            return observed_pairs(split)
        pairs = collated_pairs(split, rows)
        # A loop may make labels itself, behind the collator.
        return observed_pairs(split) if split.observed and not labelled(pairs) else pairs

    return subject.once(f"pairs of {split.name}", make)


def labelled_pairs(subject: Subject) -> list[Pair]:
    """Return training rows that have a label for each token."""
    pairs = [pair for pair in pairs_in(subject, subject.need("train")) if len(pair.labels) == len(pair.ids)]
    if not any(each != IGNORED for pair in pairs for each in pair.labels):
        raise NotChecked("batches have no labels, or not one for each token")
    return pairs


def data_shift(pairs: Sequence[Pair]) -> int:
    """Return how many places before its token a label stands: 0, or 1 where the data is shifted already.

    Raises:
        NotChecked: labels are not the tokens of the row.
    """
    counts: Counter[int] = Counter()
    total = 0
    for pair in pairs:
        for place, label in enumerate(pair.labels):
            if label == IGNORED:
                continue
            total += 1
            for shift in (0, 1, 2, -1):
                if 0 <= place + shift < len(pair.ids) and pair.ids[place + shift] == label:
                    counts[shift] += 1
    shift, matches = counts.most_common(1)[0] if counts else (0, 0)
    # The last label of a row that is shifted has no token in the row.
    if not total or matches < 0.8 * (total - len(pairs)):
        raise NotChecked("labels are not the tokens of the row, moved or not: what they mean is not known")
    return shift


@probe(
    "labels-shifted-once",
    group=GROUP,
    says="The logits at a token are scored against the next token.",
    tasks=(*TASKS, UNKNOWN),
)
def labels_shifted_once(subject: Subject) -> Finding:
    """Find by changing one label which logits it is scored with, and where its token stands in the input."""
    if subject.task == UNKNOWN and (subject.trace is None or _future_moves(subject)[0] > _future_moves(subject)[1]):
        raise NotChecked("the model is no causal language model, as far as can be told: --task causal-lm if it is")
    if subject.trace is not None:
        return _observed_shift(subject)
    pairs = labelled_pairs(subject)
    shift = data_shift(pairs)
    moves: set[int] | None = None
    for tried, share in enumerate((0.5, 0.7, 0.3, 0.9)):
        label, places = _scored_at(subject, share)
        found = {label - place for place in places}
        moves = found if moves is None else moves & found
        if tried and len(moves) < 2:
            break
    if moves is None or len(moves) != 1:
        raise NotChecked("no single place of the logits explains the loss of a label")
    move = moves.pop()
    distance = move + shift
    data = {0: "labels stand at their own tokens", 1: "labels stand one place before their tokens"}.get(
        shift, f"labels stand {shift} places before their tokens"
    )
    loss = {0: "the loss does not shift them", 1: "the loss shifts them"}.get(move, f"the loss shifts them by {move}")
    if distance == 1:
        return passed(f"{data}, and {loss}: each token is predicted from those before it", measured=1)
    where = subject.where.get("loss") or place_of(subject.need("train").collate)
    return _wrong_shift(distance, f"{data}, and {loss}; ", where, _shift_example(subject, pairs[0], move))


def _observed_shift(subject: Subject) -> Finding:
    """Compare the targets that `cross_entropy` was given in an observed loop with the tokens of the batch."""
    trace = subject.trace
    for forward in trace.forwards if trace is not None else ():
        ids = forward.batch.get("input_ids")
        if not forward.grad or ids is None or not forward.losses:
            continue
        call = forward.losses[0]
        rows, width = ids.shape
        if call.target.is_floating_point() or call.target.numel() not in (rows * width, rows * (width - 1)):
            continue
        targets = call.target.reshape(rows, -1)
        whole = targets.shape[1] == width
        pairs = [
            Pair(ints(row), [IGNORED if each == call.ignore_index else each for each in ints(target)], [], None)
            for row, target in zip(ids, targets, strict=True)
        ]
        distance = data_shift(pairs)
        if not whole and distance != 1:
            raise NotChecked("the loss leaves out one place of each row, and which one is not known")
        at = call.where or forward.where
        if distance == 1:
            return passed("the loss is given the next token at each place", measured=1)
        return _wrong_shift(
            distance,
            f"the targets of cross_entropy are the tokens {'at' if distance == 0 else f'{distance} places after'} the "
            "places of their logits; ",
            at,
        )
    raise NotChecked("no call of cross_entropy with a target for each token was seen")


def _wrong_shift(distance: int, cause: str, where: str, example: Example | None = None) -> Finding:
    """Return the finding of logits that are scored against another token than the next."""
    if distance == 0:
        cause += "each token is predicted from logits that have seen it, so the model learns to copy: shift the labels "
        cause += "once, in the loss (logits[:, :-1] against labels[:, 1:])"
    else:
        cause += "the model learns to predict a token that is not the next one: models of transformers shift labels "
        cause += "themselves, so give them labels = input_ids (transformers#44642)"
    return fail(
        f"the logits at a token are scored against the token {distance} places later, not the next one"
        if distance
        else "the logits at a token are scored against the same token",
        cause=cause + (f" ({where})" if where else ""),
        measured=distance,
        expected=1,
        example=example,
    )


def _shift_example(subject: Subject, pair: Pair, loss_shift: int) -> Example:
    cells = []
    tokens = subject.token_texts(pair.ids[:WIDTH])
    for place, token in enumerate(tokens):
        target = place + loss_shift
        label = pair.labels[target] if 0 <= target < len(pair.labels) else IGNORED
        following = tokens[place + 1] if place + 1 < len(tokens) else ""
        cells.append((token, subject.token_texts([label])[0], following))
    return Example(("logits at", "are scored against", "next token"), cells, caption="a row of the training set")


def _scored_at(subject: Subject, share: float) -> tuple[int, set[int]]:
    """Return a place with a label, and the places of the logits that explain its loss: one, unless logits repeat.

    The loss of one label follows -log p of its token at one place of the logits, whatever the loss is divided by: that
    place is found by giving the label several values.
    """
    import torch

    batch, places = _one_row(subject)
    label = places[min(int(share * len(places)), len(places) - 1)]
    model = subject.quiet_model
    logits = outputs_of(model, {key: value for key, value in batch.items() if key != "labels"}).get("logits")
    if logits is None or logits.dim() != 3 or logits.shape[1] != batch["labels"].shape[1]:
        raise NotChecked("the model returns no logits for each token")
    scores = -torch.log_softmax(logits[0].double(), dim=-1)
    # Tokens whose scores differ most from place to place.
    spread = scores.std(dim=0)
    tokens = torch.topk(spread, CHOICES).indices
    losses = []
    for token in tokens:
        labels = torch.full_like(batch["labels"], IGNORED)
        labels[0, label] = token
        losses.append(loss_of(subject, {**batch, "labels": labels}))
    measured = torch.tensor(losses, dtype=torch.float64)
    if not torch.isfinite(measured).all() or float(measured.std()) == 0:
        raise NotChecked(f"the loss does not depend on the label at place {label} of a row")
    wanted = scores[:, tokens]
    centred = wanted - wanted.mean(dim=1, keepdim=True)
    own = measured - measured.mean()
    likeness = (centred @ own) / (centred.norm(dim=1) * own.norm()).clamp_min(1e-30)
    best = float(likeness.max())
    # float32 losses of 7 with differences of 0.1 correlate to 1e-5.
    if best < 0.995:
        raise NotChecked("no place of the logits explains the loss of a label")
    return label, {place for place, each in enumerate(likeness.tolist()) if each >= 0.9999 * best}


def _one_row(subject: Subject) -> tuple[Batch, list[int]]:
    """Return a batch of the first tokens of one training row, and the places of its labels."""
    import torch

    batch = _first_batch(subject.need("train"))
    if "labels" not in batch:
        raise NotChecked("batches have no labels")
    width = batch["input_ids"].shape[1]
    count = len(batch["input_ids"])
    for row in range(count):
        labelled = [place for place, each in enumerate(ints(batch["labels"][row])) if each != IGNORED]
        if len(labelled) < 4:
            continue
        start = 0 if labelled[0] < WIDTH // 2 else labelled[0] - 4
        end = min(start + WIDTH, width)
        cut = {
            key: value[row : row + 1, start:end]
            if value.dim() >= 2 and value.shape[1] == width
            else value[row : row + 1]
            for key, value in batch.items()
            if isinstance(value, torch.Tensor) and value.dim() >= 1 and len(value) == count and value.dim() < 3
        }
        places = [place - start for place in labelled if start + 2 <= place < end]
        if len(places) >= 3:
            return cut, places
    raise NotChecked("no row has enough labels to look at")


def _first_batch(split: Split) -> Batch:
    """Return a batch of one training row, or the first that was observed."""
    if split.observed:
        return split.batch()
    return split.batch(rows_of_split(split, 1))


def _future_moves(subject: Subject) -> tuple[float, float, int]:
    """Return how far logits move when later tokens change, how far rounding explains, and how many were compared."""
    import torch

    batch = _first_batch(subject.need("train"))
    if "input_ids" not in batch:
        raise NotChecked("batches have no input_ids")
    width = batch["input_ids"].shape[1]
    inputs = {
        key: value[:1, :WIDTH] if value.dim() == 2 and value.shape[1] == width else value[:1]
        for key, value in batch.items()
        if key != "labels" and isinstance(value, torch.Tensor) and 1 <= value.dim() <= 2
    }
    ids = inputs["input_ids"]
    width = ids.shape[1]
    half = width // 2
    if half < 2:
        raise NotChecked("the row is too short")
    other = ids.clone()
    # Each later token becomes the row's first or second token, so that sums over the row change too.
    other[0, half:] = torch.where(ids[0, half:] == ids[0, 0], ids[0, 1], ids[0, 0])
    model = subject.quiet_model
    before, after = (outputs_of(model, {**inputs, "input_ids": each}).get("logits") for each in (ids, other))
    if before is None or after is None or before.dim() != 3 or before.shape[1] != width:
        raise NotChecked("the model returns no logits for each token")
    moved = float((before[0, :half] - after[0, :half]).abs().max())
    # Equal inputs may go through kernels of other shapes: float32 moves logits by about 1e-6 of their scale.
    return moved, 1e-4 * (float(before.std()) or 1.0), half


@probe(
    "logits-see-no-future",
    group=GROUP,
    says="The logits at a token do not depend on later tokens.",
    tasks=TASKS,
)
def logits_see_no_future(subject: Subject) -> Finding:
    """Change the last tokens of a row and compare the logits before them."""
    moved, allowed, half = _future_moves(subject)
    if moved <= allowed:
        return passed(f"the logits of {half} tokens stay when the {half} tokens after them change", measured=moved)
    model = subject.quiet_model
    config = getattr(model, "config", None)
    cause = "attention is not causal, so the model copies the token that it must predict, and the loss says nothing"
    if getattr(config, "is_decoder", None) is False:
        cause += "; config.is_decoder is False: load the model with is_decoder=True"
    else:
        cause += (
            "; some models lost their causal mask in transformers 5.9 (transformers#48745): update, or change the mask"
        )
    return fail(
        f"the logits of a token change by {moved:.3g} when tokens after it change",
        cause=cause,
        measured=moved,
        expected=0.0,
    )


@probe(
    "end-of-text-supervised",
    group=GROUP,
    says="The end of a text has a label, so that the model learns to stop.",
    tasks=TASKS,
    budget="fast",
)
def end_of_text_supervised(subject: Subject) -> Finding:
    """Look for the labels of real end-of-text tokens, also where the same token pads."""
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
    """Look for special tokens at the borders of documents that are joined, and for texts that see their neighbours."""
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

    batch = _first_batch(subject.need("train"))
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
    """Count the tokens that go into the function that makes chunks, and those that come out."""
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
    return passed(text, measured=lost)


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


@probe(
    "completion-supervised",
    group=GROUP,
    says="Where prompts have no labels, the whole completion has labels, and nothing else.",
    tasks=TASKS,
    budget="fast",
)
def completion_supervised(subject: Subject) -> Finding:
    """Compare the text that has labels with the columns that rows were made of."""
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
