"""What transformers' `generate` writes, without most of what it does for it.

A search (`search`) does what is taken of the settings (`rules`): each step, a decoder put together of the model's own
modules (`families`, `decoder`) says what is to be looked up in the vocabulary, and `vocabulary_scores` for which tokens
it speaks most.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from touchstone.packed.layout import Layout, laid_out
from touchstone.packed.writing.decoder import Decoder
from touchstone.packed.writing.families import family_of
from touchstone.packed.writing.rules import rules_of
from touchstone.packed.writing.search import beam_search, greedy, interval_on
from touchstone.packed.writing.vocabulary_scores import VocabularyScores


def written(
    model: PreTrainedModel,
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    generation_config: GenerationConfig,
) -> torch.Tensor | None:
    """(B, 1 + T) int64 what `model.generate` would write, up to near-ties; the start first. None where the settings, or
    the model's own, ask for more than `rules` knows, or where nobody knows how to run its decoder.

    Args:
        model: whose attention is packed: see `Unpadded`.
    """
    family = family_of(model)
    if family is None:
        return None
    own: Any = model
    size = own.get_output_embeddings().out_features
    rules = rules_of(generation_config, own=own.generation_config, vocabulary=size)
    if rules is None:
        return None
    layout = Layout.of(attention_mask, device=input_ids.device)
    with laid_out(layout):
        encoded = own.get_encoder()(input_ids=layout.source.pack(input_ids)).last_hidden_state
    decoder = Decoder(family, encoded=encoded, source=layout.source, beams=rules.beams, steps=rules.steps)
    scores = VocabularyScores(model, rows=len(input_ids) * rules.beams, rules=rules)
    search = greedy if rules.beams == 1 else beam_search
    return search(decoder, scores, rules, rows=len(input_ids), interval=interval_on(input_ids.device))
