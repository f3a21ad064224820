"""Probes of generation in an evaluation: what the decoder and `generate` are given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from touchstone.auditing.adapters.evaluated import EvaluationRecord
from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading import gold
from touchstone.auditing.reading.scored import SMALL, raised_at, where
from touchstone.auditing.subject import IGNORED, SEQ2SEQ, Subject, ints

if TYPE_CHECKING:
    pass

GROUP = "evaluation"


@probe(
    "no-negative-id-decoded",
    group=GROUP,
    says="No negative id reaches the tokenizer's decoder.",
    tasks=(*SEQ2SEQ, "causal-lm", "masked-lm", "unknown"),
)
def no_negative_id_decoded(subject: Subject) -> Finding:
    """Watch what the metric decodes, for labels with -100 and for predictions padded with -100.

    Fault: -100 reaches the tokenizer's decoder, which raises an OverflowError or decodes an unknown token into the
    text that is scored.

    Causes: Labels hold -100 for padding. Predictions hold it too, because the Trainer pads batches of different
    lengths with -100.

    Remedy: Replace it in both: `np.where(labels != -100, labels, tokenizer.pad_token_id)`.

    Warning: With these settings all predictions have one length; with others, -100 would reach the decoder.
    """
    evaluate = subject.need("evaluate")
    subject.need("compute_metrics")
    with _watched_decoder(subject.need("tokenizer")) as decoded:
        record = evaluate(SMALL, again=True)
    if not decoded and record.error is None:
        raise NotChecked("the metric decodes nothing")
    if any(negative for _, negative in decoded):
        return _negative(record, "labels or predictions as the Trainer gives them")
    record.need()
    predictions, labels = record.calls[-1]
    first = gold.first(predictions)
    if not hasattr(first, "ndim") or first.ndim != 2 or first.dtype.kind not in "iu":
        return passed(f"{len(decoded)} decoded rows hold no negative id")
    import numpy as np

    padded = np.concatenate([first, np.full((len(first), 3), IGNORED, dtype=first.dtype)], axis=1)
    error: Exception | None = None
    with _watched_decoder(subject.tokenizer) as decoded:
        try:
            subject.need("compute_metrics")(gold.with_first(predictions, padded), labels)
        except Exception as raised:
            error = raised
    if not any(negative for _, negative in decoded):
        return passed("no negative id is decoded, also where predictions are padded with -100")
    happens = _may_pad(subject, record)
    how = f", which raises {type(error).__name__}" if error else ""
    advice = "replace it first: np.where(predictions != -100, predictions, tokenizer.pad_token_id)"
    if happens:
        return fail(
            f"-100 in the predictions reaches the decoder{how}",
            cause=f"{happens}, so the Trainer pads shorter batches of predictions with -100: {advice}"
            f"{where(subject, 'compute_metrics')}",
        )
    return warn(
        f"-100 in the predictions would reach the decoder{how}",
        cause=f"the Trainer pads predictions of different lengths with -100; with these settings all have one length; "
        f"{advice}",
    )


def _may_pad(subject: Subject, record: EvaluationRecord) -> str:
    """Return why predictions of different batches can have different lengths, or an empty string."""
    if any((gold.first(predictions) < 0).any() for predictions, _ in record.calls):
        return "predictions of different batches have different lengths"
    if not record.generations:
        return ""
    given = record.generations[0]
    config = getattr(subject.model, "generation_config", None)
    padded_to = getattr(config, "max_length", None) or 20
    limit = given.get("max_length") or given.get("max_new_tokens")
    if limit and not getattr(config, "max_new_tokens", None) and limit > padded_to:
        return f"generate may return up to {limit} tokens, and shorter output is only padded to {padded_to}"
    return ""


def _negative(record: EvaluationRecord, what: str) -> Finding:
    error = record.error
    raised = f", which raises {type(error).__name__}" if error is not None else ""
    at = f" (at {raised_at(error)})" if error is not None else ""
    return fail(
        f"negative ids reach the decoder{raised}",
        cause=f"{what} hold -100, which is no token: replace it before decoding, "
        f"np.where(labels != -100, labels, tokenizer.pad_token_id){at}",
    )


@contextmanager
def _watched_decoder(tokenizer: Any) -> Iterator[list[tuple[str, bool]]]:
    """Record for each call of the decoder whether a negative id was passed."""
    calls: list[tuple[str, bool]] = []
    undo: list[Callable[[], None]] = []

    def watch(name: str) -> None:
        original = getattr(tokenizer, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            given = arguments[0] if arguments else next(iter(options.values()), None)
            calls.append((name, _has_negative(given)))
            return original(*arguments, **options)

        own = vars(tokenizer).get(name)
        setattr(tokenizer, name, watched)
        undo.append(lambda: setattr(tokenizer, name, own) if own is not None else delattr(tokenizer, name))

    for name in ("decode", "batch_decode", "convert_ids_to_tokens"):
        if hasattr(tokenizer, name):
            watch(name)
    try:
        yield calls
    finally:
        for put_back in undo:
            put_back()


def _has_negative(ids: Any) -> bool:
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, (list, tuple)):
        return any(_has_negative(each) for each in ids)
    return isinstance(ids, int) and ids < 0


@probe(
    "generate-sees-no-label",
    group=GROUP,
    says="What generate is given holds no label.",
    tasks=(*SEQ2SEQ, "causal-lm", "unknown"),
)
def generate_sees_no_label(subject: Subject) -> Finding:
    """Compare the labels with the ids that `generate` is given in an evaluation.

    Fault: generate is given the reference and continues it. The scores say nothing about the model.

    Causes: The input_ids of a causal model hold prompt and answer, and Seq2SeqTrainer passes them on
    (transformers#26474). Or an overridden prediction step passes decoder_input_ids.

    Remedy: Evaluate on rows that end with the prompt. For an encoder-decoder, pass input_ids and attention_mask only.
    """
    pairs = _generations(subject)
    special = set(getattr(subject.tokenizer, "all_special_ids", ()))
    decoder_only = not getattr(getattr(subject.model, "config", None), "is_encoder_decoder", False)
    names = ("input_ids", "inputs") if decoder_only else ("decoder_input_ids",)
    seen = 0
    for labels, given in pairs:
        for name in names:
            prompt = given.get(name)
            if prompt is None:
                continue
            for row, answer in zip(prompt, labels, strict=True):
                wanted = [label for label in ints(answer) if label != IGNORED and label not in special]
                seen += bool(wanted)
                end = wanted[len(wanted) // 2 : -1]  # decoder inputs lack the last label
                if len(end) >= 2 and _holds(ints(row), end):
                    return _leak(subject, name, row, wanted, decoder_only)
    return passed(f"generate is given no labels as a prompt in {len(pairs)} batches")


def _generations(subject: Subject) -> list[tuple[Any, Mapping[str, Any]]]:
    """Return the labels of batches, and what `generate` was given for them."""
    if subject.trace is not None:
        batches = [each.batch for each in subject.trace.evaluation_forwards() if "labels" in each.batch]
        given = list(subject.trace.generations)
        pairs = [(batch["labels"], options) for batch in batches for options in given]
        found = [pair for pair in pairs if len(pair[0]) == len(next(iter(pair[1].values()), ()))]
    else:
        record: EvaluationRecord = subject.need("evaluate")(SMALL).need()
        given = list(record.generations)
        batches = [each.batch for each in record.predictions]
        found = [
            (batch["labels"], options) for batch, options in zip(batches, given, strict=False) if "labels" in batch
        ]
    if not given:
        raise NotChecked("no call of generate was seen in an evaluation")
    if not found:
        raise NotChecked("the evaluation rows have no labels")
    return found


def _holds(row: list[int], part: list[int]) -> bool:
    return any(row[start : start + len(part)] == part for start in range(len(row) - len(part) + 1))


def _leak(subject: Subject, name: str, row: Any, wanted: list[int], decoder_only: bool) -> Finding:
    cells = [
        (token, "label" if each in wanted else "")
        for token, each in zip(subject.token_texts(row), ints(row), strict=True)
    ]
    cause = (
        "input_ids of a causal model hold prompt and answer, and Seq2SeqTrainer passes them to generate as they are "
        "(transformers#26474): evaluate on rows whose input_ids end with the prompt"
        if decoder_only
        else "decoder_input_ids are passed to generate, which then continues the reference: Seq2SeqTrainer removes "
        "them only if they have the shape of the labels; let the model make them from the labels"
    )
    return fail(
        f"{name}, given to generate, holds the reference",
        cause=cause,
        example=Example(("token", ""), cells, caption="what generate is given for one row"),
    )
