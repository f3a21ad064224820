"""Small tokenizers of all families in use, trained on first use, and their encodings of words and texts.

They need only the `tokenizers` library, so that the checks start fast. `tests/properties/test_strategies.py` tests that
they equal `transformers.PreTrainedTokenizerFast(..., is_split_into_words=True)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = (
    "the people of the towns went to the river and saw the boats on the water",
    "an unaffable person named Anna Müller-Lüdenscheidt lives in Île-de-France near B-52 street",
    "don't stop: 3.14 is not 22/7, and e-mail isn't mail",
    "東京 都庁 は 新宿 に ある", "שלום עולם", "مرحبا بالعالم", "naïve café 👍 👩‍👩‍👧",
)  # fmt: skip
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def _with_specials(tokenizer: Tokenizer) -> Tokenizer:
    ids = [(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")]  # special tokens come first
    template = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer.post_processor = template
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _with_specials(tokenizer)


def _byte_level(*, trim_offsets: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    cls, sep = (("[CLS]", SPECIAL.index("[CLS]")), ("[SEP]", SPECIAL.index("[SEP]")))  # special tokens come first
    tokenizer.post_processor = processors.RobertaProcessing(sep, cls, trim_offsets=trim_offsets, add_prefix_space=True)
    return tokenizer


def _metaspace(model: models.Model, trainer: trainers.Trainer) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _with_specials(tokenizer)


def _metaspace_unigram() -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=140, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False)
    return _metaspace(models.Unigram(), trainer)


def _metaspace_bpe() -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=SPECIAL, show_progress=False)
    return _metaspace(models.BPE(unk_token="[UNK]"), trainer)


def _characters() -> Tokenizer:
    """Build a tokenizer with one token per character, as models of Chinese and Japanese have."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"\X"), behavior="isolated")
    tokenizer.train_from_iterator(CORPUS, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return _with_specials(tokenizer)


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": _wordpiece,
    "byte-level BPE": lambda: _byte_level(trim_offsets=True),
    "byte-level BPE, untrimmed": lambda: _byte_level(trim_offsets=False),
    "metaspace unigram": _metaspace_unigram,
    "metaspace BPE": _metaspace_bpe,
    "characters": _characters,
}


@cache
def tokenizer_of(family: str) -> Tokenizer:
    """Return the tokenizer of a family. It is trained on first use."""
    return FAMILIES[family]()


@dataclass(frozen=True)
class Encoded:
    """Encoded words, all `(T,)`.

    Attributes:
        word_ids: `None` at special tokens. In a pair each sequence counts from 0.
        sequence_ids: 0 or 1, `None` at special tokens.
    """

    family: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    word_ids: tuple[int | None, ...]
    sequence_ids: tuple[int | None, ...]

    @property
    def shown(self) -> str:
        """The tokens and the family, for a report."""
        return f"{' '.join(self.tokens)}   ({self.family})"


@lru_cache(maxsize=4096)
def encode(
    family: str, words: tuple[str, ...], pair: tuple[str, ...] | None = None, max_tokens: int | None = None
) -> Encoded:
    """Encode words with special tokens around them, at most `max_tokens` tokens, which include the special ones."""
    tokenizer = tokenizer_of(family)
    if max_tokens is not None:
        tokenizer.enable_truncation(max_tokens)
    try:
        whole = tokenizer.encode(list(words), None if pair is None else list(pair), is_pretokenized=True)
    finally:
        tokenizer.no_truncation()
    return Encoded(family, tuple(whole.ids), tuple(whole.tokens), tuple(whole.word_ids), tuple(whole.sequence_ids))


@lru_cache(maxsize=4096)
def encode_text(family: str, text: str) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Return the token ids of a text, without special tokens, and the characters (start, end) of each."""
    encoding = tokenizer_of(family).encode(text, add_special_tokens=False)
    return tuple(encoding.ids), tuple(encoding.offsets)
