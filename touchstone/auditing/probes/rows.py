"""Probes of tokenizer and model: what padding, the other rows of a batch, and token types do to a row."""

from __future__ import annotations

from typing import Any

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.ids import tokenized_rows
from touchstone.auditing.reading.pairs import outputs_of, place_of
from touchstone.auditing.subject import Batch, Split, Subject, ints

GROUP = "tokenizer and model"
PADDING = 32


def _logits(model: Any, batch: Batch, encoder_decoder: bool) -> Any:
    """Return what the model computes for each token or each row: logits, or start and end logits side by side."""
    import torch

    found = outputs_of(model, batch)
    logits = found.get("logits")
    if logits is None and "start_logits" in found and "end_logits" in found:
        logits = torch.stack([found["start_logits"], found["end_logits"]], dim=-1)
    if logits is None or logits.dim() not in (2, 3) or len(logits) != len(batch["input_ids"]):
        raise NotChecked("the model returns no logits for each token or each row")
    if logits.dim() == 3 and not encoder_decoder and logits.shape[:2] != batch["input_ids"].shape:
        raise NotChecked("the model returns no logits for each token")
    return logits


def _need_steady(model: Any, batch: Batch, encoder_decoder: bool) -> None:
    """Check that the model computes the same finite logits for the same batch.

    Raises:
        NotChecked: it does not, so that nothing can be said of what moves its logits.
    """
    first, second = (_logits(model, batch, encoder_decoder) for _ in range(2))
    if not bool(first.isfinite().all() and second.isfinite().all()):
        raise NotChecked("the model's logits are not finite: look for parameters that nothing initializes")
    if float((first - second).abs().max()) > 1e-4 * (float(first.std()) or 1.0):
        raise NotChecked("the model computes other logits for the same batch: see dropout-off-in-evaluation")


def _two_rows(subject: Subject) -> tuple[Batch, list[list[int]], str]:
    """Return a batch of a short and a longer row, the places of their tokens, and the side of the padding."""

    def make() -> tuple[Batch, list[list[int]], str]:
        import torch

        train = subject.need("train")
        try:
            rows = tokenized_rows(subject, train)
        except NotChecked:
            return _two_observed(train)
        short = min(rows, key=lambda row: len(row["input_ids"]))
        # A row that is a little longer is enough, and quick.
        limit = len(short["input_ids"]) + PADDING
        near = [row for row in rows if len(short["input_ids"]) < len(row["input_ids"]) <= limit]
        long = max(near or rows, key=lambda row: len(row["input_ids"]))
        batch = train.batch([short, long])
        if "input_ids" not in batch or len(batch["input_ids"]) != 2:
            raise NotChecked("the collator does not make two rows of two rows")
        return _with_places({key: value for key, value in batch.items() if isinstance(value, torch.Tensor)})

    return subject.once("two rows", make)


def _two_observed(split: Split) -> tuple[Batch, list[list[int]], str]:
    """Return the shortest row of an observed batch, and another row."""
    import torch

    for batch in split.observed:
        ids, mask = batch.get("input_ids"), batch.get("attention_mask")
        if ids is None or len(ids) < 2:
            continue
        short = int(mask.sum(dim=1).argmin()) if mask is not None and mask.dim() == 2 else 0
        rows = [short, 0 if short else 1]
        whole = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
        return _with_places(
            {key: value[rows] for key, value in whole.items() if value.dim() and len(value) == len(ids)}
        )
    raise NotChecked("no batch of two rows was seen")


def _with_places(batch: Batch) -> tuple[Batch, list[list[int]], str]:
    if batch["input_ids"].dim() != 2:
        raise NotChecked("a row of a batch holds several texts: input_ids have the shape (rows, texts, tokens)")
    width = batch["input_ids"].shape[1]
    mask = batch.get("attention_mask")
    places = [list(range(width)) for _ in range(2)]
    if mask is not None and mask.dim() == 2:
        places = [[place for place, seen in enumerate(ints(row)) if seen] for row in mask]
    return batch, places, "left" if places[0] and places[0][0] > 0 else "right"


def _inputs(batch: Batch, encoder_decoder: bool) -> Batch:
    """Return what the model reads. Encoder-decoders need labels or decoder inputs; others compute without them."""
    return {
        key: value
        for key, value in batch.items()
        if encoder_decoder or key not in ("labels", "start_positions", "end_positions", "label")
    }


@probe(
    "padding-moves-no-logit",
    group=GROUP,
    says="The logits of a row's own tokens are the same with and without padding.",
)
def padding_moves_no_logit(subject: Subject) -> Finding:
    """Run the model on a padded row, and on the same row without its padding.

    Fault: The logits of a row's own tokens change with padding. What a row gives depends on the longest row of its
    batch.

    Causes: A model of your own ignores attention_mask, pools over padding, or numbers positions through it.

    Remedy: Pass the mask to every attention and pooling, and number positions from the first real token: `position_ids
    = (mask.cumsum(-1) - 1).clamp(min=0)`.

    Warning: Rows are padded on the left without position_ids, so their tokens get other positions. In generation,
    transformers numbers positions from the first token. It is no proved fault, because many train GPT-2 so, and a model
    learns from any positions. Pad on the right for training, or pass position_ids. Or padding is
    pooled, but every batch has one width, so results agree as long as nobody pads otherwise.
    """
    batch, places, side = _two_rows(subject)
    model = subject.quiet_model
    both = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    own = places[0]
    width = batch["input_ids"].shape[1]
    pads = width - len(own)
    if not pads:
        if "attention_mask" not in batch:
            raise NotChecked("batches have no attention_mask, so it is not known what is padding")
        raise NotChecked("no row is padded: rows have one length")
    hidden = {each for place, each in enumerate(ints(batch["input_ids"][0])) if place not in own}
    if len(hidden) > 1 or own != list(range(own[0], own[-1] + 1)):
        raise NotChecked("the mask hides tokens that are no padding: see mask-marks-padding")
    padded = _logits(model, {key: value[:1] for key, value in _inputs(batch, both).items()}, both)
    alone: Batch = {}
    for key, value in _inputs(batch, both).items():
        cut = value[:1]
        if cut.dim() == 2 and cut.shape[1] == width and not key.startswith(("decoder", "label")):
            cut = cut[:, own]
        alone[key] = cut
    expected = _logits(model, alone, both)
    if padded.dim() == 3 and not both:
        padded = padded[:, own]
    if padded.shape != expected.shape:
        raise NotChecked("the model returns logits of another shape for a row without padding")
    moved = float((padded - expected).abs().max())
    scale = float(expected.std() if expected.dim() == 3 else expected.abs().max()) or 1.0
    # The same row in another shape of matrix moves float32 logits by about 1e-6 of their scale, half precision weights
    # included, because the copy computes in float32.
    if moved <= 1e-3 * scale:
        return passed(f"{pads} padding tokens move the logits of {len(own)} tokens by {moved:.1e}", measured=moved)
    _need_steady(model, alone, both)
    what = "real tokens" if expected.dim() == 3 else "their row"
    message = f"{pads} padding tokens on the {side} move the logits of {what} by {moved:.3g} ({moved / scale:.0%})"
    if side == "left" and "position_ids" not in batch:
        return warn(
            message,
            cause="the row's tokens get other positions behind padding: pass position_ids that begin at the row's "
            "first token, or pad on the right for training",
            measured=moved,
            expected=0.0,
        )
    if expected.dim() == 2 and _always_as_wide(subject, width):
        return warn(
            message,
            cause="padding takes part in a mean or maximum over the tokens, or is attended. Every batch here has one "
            "width, so results agree as long as nobody pads otherwise: leave padding out by attention_mask",
            measured=moved,
            expected=0.0,
        )
    return fail(
        message,
        cause="padding takes part in a mean or maximum over the tokens, or is attended, so what a row gives depends on "
        "how long the other rows of its batch are: leave padding out by attention_mask"
        if expected.dim() == 2
        else "what a row gives depends on how long the other rows of its batch are: the model does not use "
        "attention_mask, or numbers its positions through padding",
        measured=moved,
        expected=0.0,
    )


def _always_as_wide(subject: Subject, width: int) -> bool:
    """Return whether a short row alone is padded to the same width as beside a longer one."""
    train = subject.need("train")
    try:
        short = min(tokenized_rows(subject, train), key=lambda row: len(row["input_ids"]))
        return int(train.batch([short])["input_ids"].shape[1]) == width
    except NotChecked:
        return len({batch["input_ids"].shape[1] for batch in train.observed}) < 2


@probe(
    "rows-independent",
    group=GROUP,
    says="The rows of a batch do not move each other's logits.",
)
def rows_independent(subject: Subject) -> Finding:
    """Change one row of a batch and compare the logits of the other.

    Fault: One row of a batch changes the logits of another. Scores then depend on which rows share a batch.

    Causes: A `view` or `reshape` mixes the dimensions of batch and tokens, or a mean, a softmax or a normalization
    runs over the batch.

    Remedy: Look for `view`, `transpose`, `mean(0)` and `BatchNorm` in the model's forward; use `permute` before
    `reshape`.
    """
    import torch

    batch, _, _ = _two_rows(subject)
    model = subject.quiet_model
    both = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    inputs = _inputs(batch, both)
    ids = inputs["input_ids"]
    other = ids.clone()
    other[1] = torch.where(ids[1] == ids[0], ids[0].roll(1), ids[0])
    if torch.equal(other, ids):
        raise NotChecked("both rows hold one token only")
    before = _logits(model, inputs, both)
    single = _logits(model, {key: value[:1] for key, value in inputs.items()}, both) if before.dim() == 2 else before
    if single.shape[1:] != before.shape[1:]:
        raise NotChecked("each row is compared with the others of its batch: there are as many logits as rows")
    after = _logits(model, {**inputs, "input_ids": other}, both)
    moved = float((before[0] - after[0]).abs().max())
    scale = float(before.std()) or 1.0
    # One batch of one shape: the same kernels give the same bits, but for reductions over the whole batch. A batch of
    # another shape moves float32 logits by about 1e-6 of their scale.
    apart = float((before[0] - single[0]).abs().max())
    if apart > 1e-2 * scale:
        moved = max(moved, apart)
    if moved <= 1e-4 * scale:
        return passed(f"the logits of a row move by {moved:.1e} when the other row changes", measured=moved)
    _need_steady(model, inputs, both)
    return fail(
        f"the logits of a row move by {moved:.3g} when another row of its batch changes",
        cause="the model mixes rows: look for a reshape, a mean or a normalization across the batch"
        + (f" ({place})" if (place := place_of(model)) else ""),
        measured=moved,
        expected=0.0,
    )


@probe(
    "token-types-given",
    group=GROUP,
    says="A model that tells two texts apart by token types receives them.",
    tasks=("question-answering",),
    budget="fast",
)
def token_types_given(subject: Subject) -> Finding:
    """Look for token types in batches of pairs, where tokenizer and model use them.

    Warning: The model was trained to tell question and context apart by token types, and the batches have none. All
    tokens count as the first text, which usually costs accuracy.

    Remedy: Keep token_type_ids: do not list them in `remove_columns`, and return them from the collator.
    """
    tokenizer, model = subject.need("tokenizer"), subject.need("model")
    kinds = getattr(getattr(model, "config", None), "type_vocab_size", 0) or 0
    if kinds < 2 or "token_type_ids" not in getattr(tokenizer, "model_input_names", ()):
        return passed("the model has no token types")
    batch = subject.need("train").batch()
    if "token_type_ids" in batch:
        return passed("batches have token types")
    return warn(
        "batches have no token types, so question and context look alike to the model",
        cause="the model was trained with token types, and takes all tokens for the first text without them: keep "
        "token_type_ids through map and collator",
    )
