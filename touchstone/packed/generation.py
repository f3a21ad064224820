"""Text generation with encoder-decoder models: the tokens of transformers' `generate`, in less time.

`generate` reads the generation settings into `Rules`, encodes the sources without padding, and searches. At each step
`Decoder` computes hidden states, `VocabularyScores` turns them into the best next tokens, and `greedy` or `beam_search`
decides which of them to take. Settings and models that are not supported are left to the model's own `generate`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear
from transformers import GenerationConfig, PreTrainedModel

from touchstone.packed.decoder import Decoder, find_family
from touchstone.packed.layout import Layout, use_layout

VOCABULARY_BLOCK = 256
"""Tokens whose scores are searched together."""
CACHED_ELEMENTS = 2**20
"""Scores that a CPU turns into log-probabilities together: 4 MiB, which stay in its cache."""
COMPACT_WHEN_ENDED = 8
"""Rows that have ended are removed once they are at least one in this many; removing copies the cache of the others."""
EXCLUDED_SCORE = -1.0e9
"""The score of a beam that must not be chosen. It is transformers' value: another one would break ties differently."""


def generate(
    model: PreTrainedModel,
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    generation_config: GenerationConfig,
) -> torch.Tensor | None:
    """Return (B, 1 + T) int64: the tokens of `model.generate`, except near-ties, the start token first.

    Args:
        model: a model with packed attention; see `Unpadded`.

    Returns:
        None if `Rules` does not support the settings (given or the model's own), or `decoder` the model.
    """
    family = find_family(model)
    if family is None:
        return None
    whole: Any = model
    vocabulary = whole.get_output_embeddings().out_features
    rules = read_rules(generation_config, defaults=whole.generation_config, vocabulary=vocabulary)
    if rules is None:
        return None
    layout = Layout.of(attention_mask, device=input_ids.device)
    with use_layout(layout):
        encoded = whole.get_encoder()(input_ids=layout.source.pack(input_ids)).last_hidden_state
    decoder = Decoder(family, encoded=encoded, source=layout.source, beams=rules.beams, steps=rules.steps)
    scores = VocabularyScores(model, rows=len(input_ids) * rules.beams, rules=rules)
    search = greedy if rules.beams == 1 else beam_search
    return search(decoder, scores, rules, rows=len(input_ids), interval=check_interval(input_ids.device))


# Settings -------------------------------------------------------------------------------------------------------------

FOLLOWED = frozenset({
    "num_beams", "max_new_tokens", "length_penalty", "renormalize_logits",
    "decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id",
    "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens",
})  # fmt: skip
"""Settings that `Rules` implements."""
WITHOUT_EFFECT = frozenset({
    "max_length",  # max_new_tokens takes precedence
    "temperature", "top_k", "top_p", "typical_p", "min_p", "top_h", "epsilon_cutoff", "eta_cutoff",  # only sampling
    "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",  # only with an assistant
    "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight", "max_matching_ngram_size",
    "output_attentions", "output_hidden_states", "output_scores", "output_logits",  # only return_dict_in_generate
    "use_cache", "disable_compile", "compile_config", "transformers_version", "_from_model_config",
})  # fmt: skip
"""Settings that have no effect on greedy and beam search, whatever their value."""
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
"""Settings that are supported only at the value at which they have no effect."""


@dataclass(frozen=True)
class Rules:
    """The generation settings that a search follows.

    Attributes:
        beams: width of the search; 1 is greedy.
        steps: the largest number of generated tokens, the end token included.
        start: the first token of every row.
        ends: tokens that end a row.
        padding: the token after a row's end.
        forbidden: tokens that are never generated unless forced.
        first, last: tokens that are forced at the first step, and at the last one if it is reached.
        renormalized: probabilities are normalized over the allowed tokens only.
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

    def forced(self, step: int) -> int | None:
        """Return the token that is forced at this step, counted from 0, if there is one."""
        if self.last is not None and step == self.steps - 1:
            return self.last
        return self.first if step == 0 else None


def read_rules(given: GenerationConfig, *, defaults: GenerationConfig, vocabulary: int) -> Rules | None:
    """Return the rules that `model.generate(generation_config=given)` would apply, or None if the settings need
    something that `Rules` does not support.

    Args:
        given: its settings take precedence over `defaults`.
        defaults: the model's own settings.
        vocabulary: the number of tokens that the model can generate.
    """
    known = {name: value for each in (defaults, given) for name, value in each.to_dict().items() if value is not None}
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
    # `generate` ignores end tokens among bad words, and suppresses a token even where it is forced.
    suppressed = set(_tokens(known.get("suppress_tokens")))
    forbidden = {word[0] for word in words} - set(ends) | suppressed
    if suppressed & {first, *last} or first in ends or vocabulary < (1 + len(ends)) * beams + len(forbidden):
        return None
    padding = known.get("pad_token_id")
    if padding is None or (beams > 1 and padding == 0):  # transformers' beam search treats 0 as not set
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


# Scores of the next token ---------------------------------------------------------------------------------------------


class Projection:
    """A large linear layer that is called for few rows, many times, with the same weights.

    A CPU's kernels need a weight matrix in an order of their own, and reorder it in every call: for 32 rows that takes
    as long as the product. Here it is reordered once, as torch's own compiler does.

    Args:
        weight: (O, I); later changes to it are not seen.
        bias: (O,).
        rows: the number of rows that it is tuned for; other numbers are correct, too.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, rows: int) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.reordered: torch.Tensor | None = None
        if can_reorder(weight):
            self.reordered = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Compute (N, O) x W^T + b of (N, I)."""
        if self.reordered is None:
            return linear(x, self.weight, self.bias)
        output: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self.reordered, self.bias, "none", [], "")
        return output


def can_reorder(weight: torch.Tensor) -> bool:
    """Check whether reordering is possible and saves time. In float32 it saves none, and not every build of torch has
    the operators."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class VocabularyScores:
    """Scores every token of the vocabulary as the next one.

    For a small model this is most of the work. All steps share one tensor of scores, (rows, W), where W is the
    vocabulary rounded up to whole blocks. The largest scores are found in the blocks with the largest maxima: a maximum
    per block is vectorized on a CPU, `argmax` and `topk` are not.

    Args:
        model: its output layer is used, with its `final_logits_bias` if it has one.
        rows: the largest number of rows.
    """

    def __init__(self, model: Any, *, rows: int, rules: Rules) -> None:
        head = model.get_output_embeddings()
        self._project, self._rules = Projection(head.weight, rows=rows), rules
        biases = [each for each in (head.bias, getattr(model, "final_logits_bias", None)) if each is not None]
        self._bias = sum(each.float().view(-1) for each in biases) if any(map(torch.any, biases)) else None
        self.size: int = head.out_features
        self.device: torch.device = head.weight.device
        self._forbidden = torch.tensor(rules.forbidden, dtype=torch.int64, device=self.device)
        width = -(-self.size // VOCABULARY_BLOCK) * VOCABULARY_BLOCK
        self._scores = torch.full((rows, width), -torch.inf, device=self.device)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute (N, W) float32 from (N, H), minus infinity beyond the vocabulary. The next call overwrites it."""
        scores = self._scores[: len(hidden)]
        logits = scores[:, : self.size].copy_(self._project(hidden))
        if self._bias is not None:
            logits += self._bias
        return scores

    def best(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return (N,) the allowed token with the largest score, the first one on a tie."""
        blocks = self._mask_forbidden(self.logits(hidden)).view(len(hidden), -1, VOCABULARY_BLOCK)
        block = blocks.amax(-1).argmax(-1)
        inner = blocks.gather(1, block[:, None, None].expand(-1, 1, VOCABULARY_BLOCK))[:, 0].argmax(-1)
        return block * VOCABULARY_BLOCK + inner

    def log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute (N, W) float32, minus infinity for tokens that are not allowed. The next call overwrites it."""
        scores = self.logits(hidden)
        if self._rules.renormalized:
            self._mask_forbidden(scores)
        rows = max(CACHED_ELEMENTS // scores.shape[1], 1) if scores.device.type == "cpu" else len(scores)
        for piece in torch.split(scores, rows):
            piece.copy_(torch.log_softmax(piece, -1))
        return scores if self._rules.renormalized else self._mask_forbidden(scores)

    def forced(self, token: int, *, rows: int) -> torch.Tensor:
        """Return (N, W) the log-probabilities when this token is forced: 0 for it, minus infinity for all others."""
        scores = self._scores[:rows].fill_(-torch.inf)
        scores[:, token] = 0.0
        return scores

    def _mask_forbidden(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill_(1, self._forbidden, -torch.inf) if len(self._forbidden) else scores


def best_continuations(scores: torch.Tensor, *, before: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """Find the best continuations of each source's beams.

    Args:
        scores: (B * G, W) log-probabilities of every next token, W a multiple of `VOCABULARY_BLOCK`; overwritten.
        before: (B, G) log-probabilities of the beams so far.
        count: K, the number of continuations.

    Returns:
        Three (B, K) tensors: the log-probabilities, the largest first, their beams, and their tokens.
    """
    rows, beams = before.shape
    blocks = scores.view(rows, beams, -1, VOCABULARY_BLOCK)
    per_beam = blocks.shape[2]
    # Rounding a sum is monotonic, so blocks keep the order of their maxima.
    tops = blocks.amax(-1) + before[:, :, None]
    which = tops.flatten(1).topk(min(count, tops[0].numel())).indices  # (B, K)
    inner = blocks.flatten(1, 2).gather(1, which[:, :, None].expand(-1, -1, VOCABULARY_BLOCK))
    inner += before.gather(1, which // per_beam)[:, :, None]
    best, index = inner.flatten(1).topk(count)
    block = which.gather(1, index // VOCABULARY_BLOCK)
    return best, block // per_beam, block % per_beam * VOCABULARY_BLOCK + index % VOCABULARY_BLOCK


# Search ---------------------------------------------------------------------------------------------------------------


def check_interval(device: torch.device) -> int:
    """Return how many steps pass between two checks for rows that have ended. On a CPU a check costs nothing. On a GPU
    it synchronizes, which costs more than a few superfluous steps at the end."""
    return 1 if device.type == "cpu" else 8


def greedy(decoder: Decoder, scores: VocabularyScores, rules: Rules, *, rows: int, interval: int) -> torch.Tensor:
    """Take the best token at each step.

    Returns:
        (B, 1 + T) int64, the start token first, padding after a row's end.
    """
    batch = _OpenRows(rows, rules, device=scores.device)
    tokens = batch.empty(rows)
    ended = torch.zeros(rows, dtype=torch.bool, device=scores.device)
    for step in range(rules.steps):
        forced, last = rules.forced(step), step == rules.steps - 1
        if forced is None or not last:  # a token that is not the last one has to enter the decoder's cache
            hidden = decoder.step(tokens[:, step], step)
        chosen = scores.best(hidden) if forced is None else torch.full_like(tokens[:, 0], forced)
        chosen = chosen.masked_fill_(ended, rules.padding)
        tokens[:, step + 1] = chosen
        ended |= batch.is_end(chosen)
        if step % interval == interval - 1 and not last:
            keep = batch.remove(ended, tokens)
            if keep is None:
                continue
            if not len(keep):
                return batch.finish()
            decoder.keep(keep)
            tokens, ended = tokens.index_select(0, keep), ended.index_select(0, keep)
    return batch.finish(tokens)


def beam_search(decoder: Decoder, scores: VocabularyScores, rules: Rules, *, rows: int, interval: int) -> torch.Tensor:
    """Search with G beams per source, step by step as transformers' `generate` does.

    Returns:
        (B, 1 + T) int64, each source's best finished beam, the start token first, padding after its end.
    """
    device, beams = scores.device, rules.beams
    batch = _OpenRows(rows, rules, device=device)
    count = max(2, 1 + len(rules.ends)) * beams  # enough for G beams to go on, however many end
    running = batch.empty(rows, beams)  # (B, G, 1 + T)
    finished = running.clone()
    running_scores = torch.zeros((rows, beams), device=device)
    running_scores[:, 1:] = EXCLUDED_SCORE  # all beams are equal at first, so only one may go on
    finished_scores = torch.full_like(running_scores, EXCLUDED_SCORE)
    is_finished = torch.zeros_like(running_scores, dtype=torch.bool)
    is_open = torch.ones((rows, 1), dtype=torch.bool, device=device)
    for step in range(rules.steps):
        length, last = step + 1, step == rules.steps - 1
        forced = rules.forced(step)
        if forced is None or not last:
            hidden = decoder.step(running[:, :, step].flatten(), step)
        if forced is None:
            probabilities = scores.log_probabilities(hidden)
        else:
            probabilities = scores.forced(forced, rows=running_scores.numel())
        found, parents, tokens = best_continuations(probabilities, before=running_scores, count=count)
        texts = running.gather(1, parents[:, :, None].expand(-1, -1, running.shape[2]))
        texts[:, :, step + 1] = tokens
        ends = torch.ones_like(tokens, dtype=torch.bool) if last else batch.is_end(tokens)

        # Beams that finish. Only the first G may; the others are reserves for beams that go on.
        finishing = ends & (torch.arange(count, device=device) < beams)
        candidates = found / length**rules.length_penalty + ~is_open * EXCLUDED_SCORE + ~finishing * EXCLUDED_SCORE
        merged = torch.cat([finished_scores, candidates], 1)
        finished_scores, chosen = merged.topk(beams)
        finished = torch.cat([finished, texts], 1).gather(1, chosen[:, :, None].expand(-1, -1, running.shape[2]))
        is_finished = torch.cat([is_finished, finishing], 1).gather(1, chosen)
        if last:
            break

        # Beams that go on.
        going = found + ends * EXCLUDED_SCORE
        chosen = going.topk(beams).indices
        running = texts.gather(1, chosen[:, :, None].expand(-1, -1, running.shape[2]))
        running_scores = going.gather(1, chosen)
        decoder.reorder(parents.gather(1, chosen), step)

        # A source stays open while its best beam could still become better than its worst finished one.
        worst = torch.where(is_finished, finished_scores.amin(1, keepdim=True), EXCLUDED_SCORE)
        is_open &= (running_scores[:, :1] / length**rules.length_penalty > worst).any(1, keepdim=True)
        if step % interval == interval - 1:
            keep = batch.remove(~is_open[:, 0], finished[:, 0])
            if keep is None:
                continue
            if not len(keep):
                return batch.finish()
            decoder.keep(keep)
            running, finished, running_scores, finished_scores, is_finished, is_open = (
                x.index_select(0, keep)
                for x in (running, finished, running_scores, finished_scores, is_finished, is_open)
            )
    return batch.finish(finished[:, 0])


class _OpenRows:
    """Keeps track of the rows that are still being generated, and stores the tokens of those that were removed."""

    def __init__(self, rows: int, rules: Rules, *, device: torch.device) -> None:
        self._rules = rules
        self._ends = torch.tensor(rules.ends, device=device)
        self._open = torch.arange(rows, device=device)
        self._result = self.empty(rows)

    def empty(self, *shape: int) -> torch.Tensor:
        """Return (*shape, 1 + T) the start token, then padding."""
        ids = torch.full((*shape, 1 + self._rules.steps), self._rules.padding, device=self._open.device)
        ids[..., 0] = self._rules.start
        return ids

    def is_end(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens == self._ends if len(self._ends) == 1 else torch.isin(tokens, self._ends)

    def remove(self, ended: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor | None:
        """Remove the rows that have ended, if they are enough to make it worthwhile, and store their tokens.

        Returns:
            (b,) the open rows to keep; None: all of them.
        """
        count = int(ended.sum())
        if count * COMPACT_WHEN_ENDED < len(ended):
            return None
        self._result.index_copy_(0, self._open, tokens)
        keep = (~ended).nonzero()[:, 0]
        self._open = self._open.index_select(0, keep)
        return keep

    def finish(self, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Return all rows, cut to the longest one, with `tokens` as those of the rows that are still open."""
        if tokens is not None:
            self._result.index_copy_(0, self._open, tokens)
        is_end = self.is_end(self._result[:, 1:])
        lengths = torch.where(is_end.any(1), is_end.int().argmax(1) + 1, self._rules.steps)
        return self._result[:, : 1 + int(lengths.max())]
