"""Probes of causal language modelling: each token is predicted from those before it, and from no other."""

from __future__ import annotations

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.next_tokens import batch_of_one, data_shift, labelled_pairs
from touchstone.auditing.reading.pairs import Pair, loss_of, outputs_of, place_of
from touchstone.auditing.subject import IGNORED, UNKNOWN, Batch, Subject, ints

TASKS = ("causal-lm",)
GROUP = "causal language modelling"
WIDTH = 24
CHOICES = 6


@probe(
    "labels-shifted-once",
    group=GROUP,
    says="The logits at a token are scored against the next token.",
    tasks=(*TASKS, UNKNOWN),
)
def labels_shifted_once(subject: Subject) -> Finding:
    """Find by changing one label which logits it is scored with, and where its token stands in the input.

    Fault: The logits at a token are scored against the same token, or against one after the next. In the first case
    the model learns to copy what it reads; in the second it learns to skip a token. The loss falls in both.

    Causes: Labels are shifted in the data, and the model of transformers shifts them once more. Or a loss of your own
    does not shift at all.

    Remedy: With models of transformers, give `labels = input_ids` and do not shift. In a loss of your own, score
    `logits[:, :-1]` against `labels[:, 1:]`. See transformers#44642.
    """
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

    batch = batch_of_one(subject.need("train"))
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


def _future_moves(subject: Subject) -> tuple[float, float, int]:
    """Return how far logits move when later tokens change, how far rounding explains, and how many were compared."""
    import torch

    batch = batch_of_one(subject.need("train"))
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
    """Change the last tokens of a row and compare the logits before them.

    Fault: The logits at a token change when later tokens change. The model sees the token that it must predict, so its
    loss is far too good.

    Causes: An encoder is used as a causal model without `is_decoder=True`, or a custom mask replaces the causal one.
    Some models lost their causal mask in transformers 5.9 (transformers#48745).

    Remedy: Load the model with `is_decoder=True`, update transformers, or combine your mask with a lower triangle:
    `mask & torch.ones(n, n).tril().bool()`.
    """
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
