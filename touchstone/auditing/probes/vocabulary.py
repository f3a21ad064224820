"""Probes of tokenizer and model: ids and positions that the model knows, and tokens that the tokenizer knows."""

from __future__ import annotations

from collections import Counter
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.batches import batches_of
from touchstone.auditing.reading.ids import splits_of, token_ids
from touchstone.auditing.subject import Subject

GROUP = "tokenizer and model"


def _table(model: Any) -> int | None:
    """Return the number of rows of the table of input embeddings."""
    get = getattr(model, "get_input_embeddings", None)
    try:
        table = get() if callable(get) else None
    except (NotImplementedError, AttributeError):
        return None
    size = getattr(table, "num_embeddings", None)
    weight = getattr(table, "weight", None)
    if size is None and weight is not None and getattr(weight, "ndim", 0) == 2:
        size = len(weight)
    return None if size is None else int(size)


@probe(
    "ids-in-table",
    group=GROUP,
    says="Every token id has a row in the model's table of embeddings.",
    budget="fast",
)
def ids_in_table(subject: Subject) -> Finding:
    """Compare the largest token id, and the tokenizer's size, with the table of embeddings.

    Fault: Some token ids have no row in the model's embeddings. The first batch with one raises an IndexError, or a
    device-side assert on a GPU.

    Causes: Tokens were added to the tokenizer after the model was made. Or tokenizer and model come from different
    checkpoints.

    Remedy: After the last token is added: `model.resize_token_embeddings(len(tokenizer))`.

    Warning: The tokenizer has more tokens than the model has embeddings, but the rows looked at use none of them.
    """
    size = _table(subject.need("model"))
    if size is None:
        raise NotChecked("the model's table of embeddings is not known (get_input_embeddings)")
    largest, beyond, seen = -1, Counter[int](), 0
    for split in splits_of(subject):
        for ids in token_ids(subject, split):
            seen += len(ids)
            largest = max(largest, max(ids, default=-1))
            beyond.update(each for each in ids if not 0 <= each < size)
    beyond.update(_padded_beyond(subject, size, set(beyond)))
    tokenizer = subject.tokenizer
    if beyond:
        names = ", ".join(
            f"{subject.token_texts([each])[0]} ({each})" if tokenizer is not None else str(each)
            for each, _ in beyond.most_common(4)
        )
        return fail(
            f"{sum(beyond.values())} of {seen} token ids have no row in the table of {size} embeddings: {names}",
            cause="the tokenizer has tokens that the model does not know, such as added ones; the first batch with one "
            "ends in an IndexError: call model.resize_token_embeddings(len(tokenizer)) after tokens are added",
            measured=largest,
            expected=f"below {size}",
        )
    total = len(tokenizer) if tokenizer is not None and hasattr(tokenizer, "__len__") else None
    if total is not None and total > size:
        return warn(
            f"the tokenizer has {total} tokens, and the model's table {size} embeddings",
            cause="rows that were looked at hold none of the tokens in between; the first batch with one ends in an "
            "IndexError: call model.resize_token_embeddings(len(tokenizer))",
            measured=total,
            expected=size,
        )
    return passed(
        f"the largest of {seen} ids is {largest}, and the table has {size} rows", measured=largest, expected=size
    )


def _padded_beyond(subject: Subject, size: int, known: set[int]) -> list[int]:
    """Return the ids beyond the table that only batches hold, such as an added padding token."""
    try:
        found = [each for batch in batches_of(subject.need("train")) for each in batch["input_ids"].flatten().tolist()]
    except NotChecked:
        return []
    return [each for each in found if not 0 <= each < size and each not in known]


@probe(
    "positions-in-table",
    group=GROUP,
    says="No row is longer than the model's table of positions.",
    budget="fast",
)
def positions_in_table(subject: Subject) -> Finding:
    """Compare the longest row with the tables of positions.

    Fault: A row is longer than the model's table of positions, so the model cannot run on it.

    Causes: Tokenization does not truncate, or its max_length is larger than the model's.

    Remedy: `tokenizer(texts, truncation=True, max_length=model.config.max_position_embeddings)`; RoBERTa's real limit
    is two less. Or split long texts.
    """
    from torch import nn

    model = subject.need("model")
    tables = {
        name: module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and any(part in name.rsplit(".", 1)[-1] for part in ("position", "wpe"))
        and "relative" not in name
        and "decoder" not in name
        and module.num_embeddings > 4
    }
    longest = max((len(ids) for split in splits_of(subject) for ids in token_ids(subject, split)), default=0)
    if not tables:
        return passed(f"the model has no table of positions; the longest row has {longest} tokens")
    name, size = min(tables.items(), key=lambda each: each[1])
    if longest > size:
        return fail(
            f"a row has {longest} tokens, and the model's table of positions has {size} rows",
            cause=f"the model cannot run on such a row ({name}): truncate to {size} tokens "
            f"(truncation=True, max_length={size}), or split long texts",
            measured=longest,
            expected=size,
        )
    return passed(f"the longest row has {longest} tokens, and the table of positions {size} rows", measured=longest)


@probe(
    "unknown-tokens",
    group=GROUP,
    says="Few tokens are unknown to the tokenizer.",
    budget="fast",
)
def unknown_tokens(subject: Subject) -> Finding:
    """Count unknown tokens.

    Fault: More than half of the tokens are unknown. The model sees hardly anything of the texts.

    Causes: The tokenizer is made for another script or another form of text, or case and accents are treated
    differently.

    Remedy: Look at `tokenizer.tokenize(text)` of some texts, and choose a tokenizer whose vocabulary covers them.

    Warning: Between 5% and 50% of the tokens are unknown. Look at case, script, special characters and
    pre-tokenization.
    """
    tokenizer = subject.need("tokenizer")
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return passed("the tokenizer has no unknown token")
    others = [
        getattr(tokenizer, name, None) for name in ("eos_token_id", "bos_token_id", "pad_token_id", "cls_token_id")
    ]
    if unknown in others:
        return passed("the unknown token is also another special token; a byte-level vocabulary knows every text")
    special = subject.special_ids - {unknown}
    count = total = 0
    shown: list[int] = []
    for split in splits_of(subject):
        for ids in token_ids(subject, split):
            real = [each for each in ids if each not in special]
            total += len(real)
            count += real.count(unknown)
            if unknown in real and not shown:
                shown = ids[:24]
    share = count / max(total, 1)
    text = f"{count} of {total} tokens ({share:.1%}) are unknown"
    parts: dict[str, Any] = {"measured": round(share, 4), "expected": 0}
    if shown:
        marked = [place for place, each in enumerate(shown) if each == unknown]
        parts["example"] = Example(("token",), [(each,) for each in subject.token_texts(shown)], marked=marked)
    if share > 0.5:
        return fail(
            text,
            cause="the model sees hardly anything of the texts: the tokenizer is made for another script, another case "
            "or another form of text",
            **parts,
        )
    if share > 0.05:
        return warn(
            text, cause="the vocabulary does not fit the texts: look at case, script and pre-tokenization", **parts
        )
    return passed(text, measured=round(share, 4))
