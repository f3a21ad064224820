"""Trains small tokenizers of three families, in well under a second, to the same bits on every machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from reference.sources.architectures import Marks

WORD_START = "▁"

Family = Literal["wordpiece", "byte-bpe", "metaspace-bpe"]
Text = tuple[str, ...]


def train_tokenizer(family: Family, text: Text, *, vocabulary: int, marks: Marks) -> Tokenizer:
    """A tokenizer of `vocabulary` tokens, the special ones first, that puts its marks around a text."""
    tokenizer = _FAMILIES[family](text, vocabulary, marks)
    tokens = [(token, tokenizer.token_to_id(token)) for token in marks.special]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=marks.single,
        pair=marks.pair,
        special_tokens=[(token, index) for token, index in tokens if token in marks.pair],
    )
    return tokenizer


def _wordpiece(text: Text, vocabulary: int, marks: Marks) -> Tokenizer:
    """BERT's WordPiece, cased.

    The vocabulary is that of a BPE trained on words that begin with a mark: with the mark it opens a word, without it
    it continues one. (The library's WordPieceTrainer numbers characters in the order of a hash map, so that two
    trainings differ.)
    """
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    words = pre_tokenizers.BertPreTokenizer()
    special = marks.special
    bpe = Tokenizer(models.BPE(unk_token=marks.unknown))
    bpe.normalizer = normalizer
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")]
    )
    characters = _characters(words, text)
    bpe.train_from_iterator(text, trainers.BpeTrainer(vocab_size=2 * vocabulary, show_progress=False))
    ranked = sorted(bpe.get_vocab().items(), key=lambda entry: entry[1])
    merged = (_piece(token) for token, _ in ranked if len(token) > 1)
    pieces = list(dict.fromkeys([*characters, *merged]))[: vocabulary - len(special)]
    vocab = {token: index for index, token in enumerate([*special, *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token=marks.unknown, max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _characters(words: pre_tokenizers.PreTokenizer, text: Text) -> list[str]:
    """Single characters as pieces, opening and continuing, where the text has them twice or more; the rest is
    unknown.
    """
    counts: Counter[str] = Counter()
    for line in text:
        for word, _ in words.pre_tokenize_str(line):
            counts[word[0]] += 1
            counts.update(f"##{character}" for character in word[1:])
    return sorted(piece for piece, count in counts.items() if count > 1)


def _piece(token: str) -> str:
    return token.removeprefix(WORD_START) if token.startswith(WORD_START) else f"##{token}"


def _byte_bpe(text: Text, vocabulary: int, marks: Marks) -> Tokenizer:
    """Byte-level BPE (GPT-2, RoBERTa): no character is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=marks.opens_with_space)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _train_bpe(tokenizer, text, vocabulary, marks, initial_alphabet=alphabet)


def _metaspace_bpe(text: Text, vocabulary: int, marks: Marks) -> Tokenizer:
    """BPE on text whose spaces are a visible mark (SentencePiece's convention)."""
    tokenizer = Tokenizer(models.BPE(unk_token=marks.unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
    return _train_bpe(tokenizer, text, vocabulary, marks)


def _train_bpe(tokenizer: Tokenizer, text: Text, vocabulary: int, marks: Marks, **settings: Any) -> Tokenizer:
    special = marks.special
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False, **settings)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer


_FAMILIES: dict[Family, Callable[[Text, int, Marks], Tokenizer]] = {
    "wordpiece": _wordpiece,
    "byte-bpe": _byte_bpe,
    "metaspace-bpe": _metaspace_bpe,
}
