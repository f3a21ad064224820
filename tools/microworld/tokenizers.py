"""Train the small tokenizers of the embedded checkpoints. Every training gives the same bits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from touchstone.sources.checkpoints import MARKS
from touchstone.sources.embedded import MicroworldData, embedded_examples

ROWS = 1500
"""The tokenizers are trained on the first rows of the training split."""
COLUMNS = {"bert": ("text",), "t5": ("text",), "marian": ("source", "target"), "gpt2": ("code",)}
"""Marks to the columns that their tokenizer is trained on."""
TEMPLATES = {
    "bert": ("[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1"),
    "marian": ("$A:0 </s>:0", "$A:0 $B:0 </s>:0"),
    "t5": ("$A:0 </s>:0", "$A:0 </s>:0 $B:0 </s>:0"),
    "gpt2": ("$A:0", "$A:0 $B:0"),
}
"""Marks to the templates of `tokenizers.processors.TemplateProcessing` for one text and for a pair."""
STORED = (
    ("bert", "wordpiece", 1200),
    ("gpt2", "byte-bpe", 1200),
    ("marian", "metaspace-bpe", 1200),
    ("marian", "metaspace-bpe", 2000),
    ("t5", "metaspace-bpe", 1200),
)
"""The tokenizers that the specs and the tests use: marks, family and number of tokens."""
WORD_START = "▁"


def train_tokenizer(marks: str, family: str, vocabulary: int) -> Tokenizer:
    """Train a tokenizer of `vocabulary` tokens on the embedded data. The special tokens have the first ids."""
    rows = embedded_examples(MicroworldData(train=ROWS, validation=1), "train", columns=COLUMNS[marks])
    text = [row[column] for row in rows for column in COLUMNS[marks]]
    special = list(MARKS[marks].special)
    match family:
        case "wordpiece":
            tokenizer = _wordpiece(text, vocabulary, special)
        case "byte-bpe":
            tokenizer = _byte_bpe(text, vocabulary, special)
        case _:
            tokenizer = _metaspace_bpe(text, vocabulary, special, unknown=MARKS[marks].roles["unk_token"])
    single, pair = TEMPLATES[marks]
    tokens = [(token, tokenizer.token_to_id(token)) for token in special if token in pair]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)
    return tokenizer


def _wordpiece(text: Sequence[str], vocabulary: int, special: list[str]) -> Tokenizer:
    """Train BERT's cased WordPiece.

    The pieces are those of a BPE that is trained on words that begin with `WORD_START`. A piece with that mark begins
    a word, a piece without it continues one. The library's WordPieceTrainer is not used because it numbers characters
    in the order of a hash map, so that two trainings differ.
    """
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    words = pre_tokenizers.BertPreTokenizer()
    bpe = Tokenizer(models.BPE(unk_token="[UNK]"))
    bpe.normalizer = normalizer
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [words, pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")]
    )
    bpe.train_from_iterator(text, trainers.BpeTrainer(vocab_size=2 * vocabulary, show_progress=False))
    ranked = sorted(bpe.get_vocab().items(), key=lambda entry: entry[1])
    merged = (_piece(token) for token, _ in ranked if len(token) > 1)
    pieces = list(dict.fromkeys([*_characters(words, text), *merged]))[: vocabulary - len(special)]
    vocab = {token: index for index, token in enumerate([*special, *pieces])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = words
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def _characters(words: pre_tokenizers.PreTokenizer, text: Sequence[str]) -> list[str]:
    """Return the single characters that occur twice or more, as pieces that begin or continue a word."""
    counts: Counter[str] = Counter()
    for line in text:
        for word, _ in words.pre_tokenize_str(line):
            counts[word[0]] += 1
            counts.update(f"##{character}" for character in word[1:])
    return sorted(piece for piece, count in counts.items() if count > 1)


def _piece(token: str) -> str:
    return token.removeprefix(WORD_START) if token.startswith(WORD_START) else f"##{token}"


def _byte_bpe(text: Sequence[str], vocabulary: int, special: list[str]) -> Tokenizer:
    """Train GPT-2's byte-level BPE, which has no unknown characters and gives every text back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _train_bpe(tokenizer, text, vocabulary, special, initial_alphabet=alphabet)


def _metaspace_bpe(text: Sequence[str], vocabulary: int, special: list[str], *, unknown: str) -> Tokenizer:
    """Train a BPE on text whose spaces are a visible mark, as in SentencePiece."""
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
    return _train_bpe(tokenizer, text, vocabulary, special)


def _train_bpe(
    tokenizer: Tokenizer, text: Sequence[str], vocabulary: int, special: list[str], **settings: Any
) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False, **settings)
    tokenizer.train_from_iterator(text, trainer)
    return tokenizer
