"""How a tokenizer puts two texts together, learnt from what it makes of a pair."""

from __future__ import annotations

from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from reference.sources.source import SourceError


class Template(NamedTuple):
    """How the tokenizer puts a question and a context together, and which special token stands for "no answer"."""

    pieces: tuple[tuple[int | str, int], ...]
    cls: int
    """Its index in `pieces`."""


def template_of(tokenizer: PreTrainedTokenizerBase) -> Template:
    """What the tokenizer makes of a pair, question first, or context first where it pads on the left (XLNet).

    Raises:
        SourceError: no special token that could stand for "no answer", or none that pads.
    """
    question_first = tokenizer.padding_side == "right"
    encodings = tokenizer("a", "b").encodings
    assert encodings is not None
    (encoding,) = encodings
    names = ("question", "context") if question_first else ("context", "question")
    pieces: list[tuple[int | str, int]] = []
    previous = None
    for token, type_id, sequence, special in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.special_tokens_mask, strict=True
    ):
        current = None if special else sequence
        if current is None:
            pieces.append((int(token), int(type_id)))
        elif current != previous:
            pieces.append((names[current], int(type_id)))
        previous = current
    tokens = [what for what, _ in pieces if isinstance(what, int)]
    if not tokens or tokenizer.pad_token_id is None:
        raise SourceError(
            "the tokenizer puts no special token into a pair of texts, or has none to pad with; question answering "
            "needs one that stands for no answer, and one that pads: take a checkpoint that was made for pairs"
        )
    wanted = tokenizer.cls_token_id if tokenizer.cls_token_id in tokens else tokens[0]
    return Template(tuple(pieces), [what for what, _ in pieces].index(wanted))
