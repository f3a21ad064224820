"""The probe of a padding token that texts hold, too."""

from __future__ import annotations

import re
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.pairs import Pair, collated_pairs, rows_of_split
from touchstone.auditing.subject import IGNORED, Subject

ROWS = 64
LEAST = 3
"""Fewer tokens than these do not show what becomes of their labels."""
MOST = 0.9
MARK = re.compile(r"[<\[{|].*[>\]}|]|.*pad.*", re.IGNORECASE)
"""Tokens that are marks by their form, such as `<pad>` and `[PAD]`. Packed rows may have them between texts."""


@probe(
    "padding-is-no-text",
    group="tokenizer and model",
    says="The padding token is no token of the texts.",
    budget="fast",
)
def padding_is_no_text(subject: Subject) -> Finding:
    """Look for the padding token between the tokens of the texts, and for what becomes of its labels.

    Fault: Texts hold the padding token, and collators give it the label -100 there, too. The model never learns to
    write it.

    Causes: A model without a padding token was given an ordinary one, such as "!" or the token with the id 0.

    Remedy: Add one: `tokenizer.add_special_tokens({"pad_token": "<|pad|>"})`, then
    `model.resize_token_embeddings(len(tokenizer))`.

    Warning: Texts hold the padding token, and it has its labels. Code that looks for padding by its id goes wrong.
    """
    tokenizer = subject.need("tokenizer")
    pad = getattr(tokenizer, "pad_token_id", None)
    if pad is None:
        raise NotChecked("the tokenizer has no padding token")
    name = subject.token_texts([pad])[0]
    marks = {getattr(tokenizer, f"{kind}_token_id", None) for kind in ("eos", "bos", "cls", "sep", "unk", "mask")}
    if pad in marks or MARK.fullmatch(name):
        return passed(f"the padding token {name} is a mark, and no text")
    train = subject.need("train")
    pairs = collated_pairs(train, rows_of_split(train, ROWS))
    total = sum(len(pair.real) for pair in pairs)
    held = [(pair, place) for pair in pairs for place in _inside(pair, pad)]
    if not held:
        return passed(f"none of {total} tokens of the texts is the padding token {name}")
    lost = [(pair, place) for pair, place in held if _left_out(pair, place)]
    pair, place = (lost or held)[0]
    near = range(max(0, place - 6), min(len(pair.ids), place + 6))
    labels = [pair.labels[each] if len(pair.labels) == len(pair.ids) else IGNORED for each in near]
    parts: dict[str, Any] = {
        "measured": len(held),
        "expected": 0,
        "example": Example(
            ("token", "label"),
            list(
                zip(
                    subject.token_texts([pair.ids[each] for each in near]),
                    ["-100" if each == IGNORED else subject.label_text(each) for each in labels],
                    strict=True,
                )
            ),
            marked=(place - near[0],),
            caption="a row of a training batch",
        ),
    }
    message = f"{len(held)} of {total} tokens of the texts are {name!r}, which is the padding token"
    change = "give the tokenizer a padding token of its own, and resize the embeddings"
    if len(lost) >= LEAST and len(lost) >= MOST * len(held):
        return fail(
            message,
            cause=f"{len(lost)} of them have the label -100 like padding, so the model never learns to write {name!r}: "
            f"{change}",
            **parts,
        )
    return warn(message, cause=f"code that looks for the padding token takes them for padding: {change}", **parts)


def _inside(pair: Pair, pad: int) -> list[int]:
    """Return the places of the padding token between other tokens of a row."""
    tokens = pair.original if pair.original is not None else pair.ids
    own = [place for place in pair.real if tokens[place] != pad]
    return [place for place in pair.real if tokens[place] == pad and own and own[0] < place < own[-1]]


def _left_out(pair: Pair, place: int) -> bool:
    """Tell whether a token has no label, and the tokens at both sides have one."""
    if len(pair.labels) != len(pair.ids) or pair.labels[place] != IGNORED:
        return False
    return all(pair.labels[each] != IGNORED or pair.ids[each] == pair.ids[place] for each in (place - 1, place + 1))
