"""What decides which tokens are written: the part of transformers' generation settings that `search` follows.

A setting that is neither followed nor without effect means that the model's own `generate` has to write.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

FOLLOWED = frozenset({
    "num_beams", "max_new_tokens", "length_penalty", "renormalize_logits",
    "decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id",
    "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens",
})  # fmt: skip
WITHOUT_EFFECT = frozenset({
    "max_length",  # max_new_tokens is before it
    "temperature", "top_k", "top_p", "typical_p", "min_p", "top_h", "epsilon_cutoff", "eta_cutoff",  # of sampling
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",  # of an assistant
    "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "max_matching_ngram_size",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits",  # without return_dict_in_generate
    "use_cache", "disable_compile", "compile_config", "transformers_version", "_from_model_config",
})  # fmt: skip
NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": False,
    "min_length": 0,
    "min_new_tokens": 0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "guidance_scale": 1.0,
    "return_dict_in_generate": False,
    "remove_invalid_values": False,
    "token_healing": False,
    "is_assistant": False,
    "low_memory": False,
    "use_mtp": False,
}
"""Settings with the value at which they do nothing."""


@dataclass(frozen=True)
class Rules:
    """Attributes:
    beams: width of the search; 1 takes the likeliest token each time.
    steps: tokens written at most, the end included.
    start: what every row begins with.
    ends: tokens that end a row.
    padding: what follows a row's end.
    forbidden: tokens that are never written unless they are forced.
    first, last: tokens that are forced at the first step, and at the last if it is reached.
    renormalized: whether probabilities are those among the tokens that are allowed.
    length_penalty: a finished beam's log-probability is divided by its length to this power.
    """

    beams: int
    steps: int
    start: int
    ends: tuple[int, ...]
    padding: int
    forbidden: tuple[int, ...] = ()
    first: int | None = None
    last: int | None = None
    renormalized: bool = False
    length_penalty: float = 1.0

    def forced(self, place: int) -> int | None:
        """The token that must be written at this step, from 0."""
        if self.last is not None and place == self.steps - 1:
            return self.last
        return self.first if place == 0 else None


def rules_of(given: GenerationConfig, *, own: GenerationConfig, vocabulary: int) -> Rules | None:
    """What `generate(generation_config=given)` of a model would follow; None if there is more to it than `Rules` says.

    Args:
        given: goes before `own`, setting by setting.
        own: the model's.
        vocabulary: tokens that the model can write.
    """
    known = {name: value for each in (own, given) for name, value in each.to_dict().items() if value is not None}
    for name, value in known.items():
        if name not in FOLLOWED | WITHOUT_EFFECT and not (name in NEUTRAL and value == NEUTRAL[name]):
            return None
    steps, start = known.get("max_new_tokens"), known.get("decoder_start_token_id", known.get("bos_token_id"))
    ends = _tokens(known.get("eos_token_id"))
    words = known.get("bad_words_ids") or []
    last = _tokens(known.get("forced_eos_token_id"))
    beams, first = known.get("num_beams", 1), known.get("forced_bos_token_id")
    if (
        steps is None
        or not isinstance(start, int)
        or not ends
        or len(last) > 1
        or any(len(word) != 1 for word in words)
    ):
        return None
    # A word that ends a row is no bad one to `generate`; a token suppressed is so even where it is forced.
    suppressed = set(_tokens(known.get("suppress_tokens")))
    forbidden = {word[0] for word in words} - set(ends) | suppressed
    if suppressed & {first, *last} or first in ends or vocabulary < (1 + len(ends)) * beams + len(forbidden):
        return None
    padding = known.get("pad_token_id")
    if padding is None or (beams > 1 and padding == 0):  # sic: beam search takes 0 for none
        padding = ends[0]
    return Rules(
        beams=beams,
        steps=steps,
        start=start,
        ends=ends,
        padding=padding,
        forbidden=tuple(sorted(forbidden)),
        first=first,
        last=last[0] if last else None,
        renormalized=bool(known.get("renormalize_logits")),
        length_penalty=known.get("length_penalty", 1.0),
    )


def _tokens(value: int | Iterable[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(value)
