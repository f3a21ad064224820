"""Read words and tags from source rows, whatever their columns are called, and find the word of every token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from touchstone.auditing.finding import NotChecked
from touchstone.auditing.reading.lineage import IDS, Lineage, Origin, lineages, tokens_of
from touchstone.auditing.reading.spans import columns_of_spans, words_and_tags
from touchstone.auditing.reading.streams import held
from touchstone.auditing.subject import IGNORED, Row, Split, Subject, ints

TokensOfWords = Callable[[Any, Sequence[str]], "tuple[list[int], list[int]]"]
"""Tokenizes words without special tokens: (tokenizer, words) -> (ids, the index of each token's word)."""


@dataclass(frozen=True)
class Sentence:
    """One processed row beside its words and tags.

    Args:
        origin: where the row came from.
        words, tags: as in the source row. A tag is a string or a number.
        ids, labels: as the model receives them.
        word_of: the index of each token's word; None at special tokens and padding.
    """

    origin: Origin
    words: list[str]
    tags: list[Any]
    ids: list[int]
    labels: list[int]
    word_of: list[int | None]

    def tokens_of_word(self) -> dict[int, list[int]]:
        """Return the positions of each word's tokens, by the word's index."""
        found: dict[int, list[int]] = {}
        for position, word in enumerate(self.word_of):
            if word is not None:
                found.setdefault(word, []).append(position)
        return found


@dataclass(frozen=True)
class Reading:
    """The sentences of a split.

    Args:
        sentences: those whose tokens were traced to words.
        lineage: where the words came from.
        tag_names: the data set's name of each tag id, or None.
        pair: reads words and tags from a source row.
        unlike: the number of source rows that have not as many tags as words.
    """

    sentences: list[Sentence]
    lineage: Lineage
    tag_names: list[str] | None
    pair: Callable[[Row], tuple[list[str], list[Any]] | None]
    unlike: int = 0


def read(subject: Subject, split: Split) -> Reading:
    """Return the sentences of a split, with words and tags. The result is kept on the subject.

    Raises:
        NotChecked: words and tags were not found, or do not become the tokens of the rows.
    """
    return subject.once(f"sentences of {split.name}", lambda: _read(subject, split))


def _read(subject: Subject, split: Split) -> Reading:
    subject, split = held(subject, split)
    tokenizer = subject.need("tokenizer")
    untraced = ""
    for lineage in lineages(subject, split):
        origins = lineage.origins
        sources = [each.source for each in origins[:24]]
        pairs = list(_pairs(sources))
        # Words and tags of different lengths are a fault, which is read only if the tags can be nothing else.
        loose = [] if pairs else list(_unlike_pairs(sources, subject.names or ()))
        spans = set() if pairs or loose else set(columns_of_spans(sources))
        pairs += sorted(spans)
        if not pairs and not loose:
            continue
        rows = tokens_of(split, origins)
        if not all("labels" in row for row in rows):
            raise NotChecked("the batches have no labels")
        best: list[Sentence] = []
        chosen = None
        for words, tags in pairs or loose:
            reader = _reader(words, tags, loose=bool(loose), spans=bool(spans))
            sentences = _sentences(subject, origins, rows, reader, tokenizer)
            if _rank(subject, sentences, tags) > _rank(subject, best, chosen):
                best, chosen = sentences, tags
        if chosen is not None and len(best) * 2 >= len(origins):
            words = next(words for words, tags in pairs or loose if tags == chosen)
            reader = _reader(words, chosen, loose=bool(loose), spans=bool(spans))
            strict = _reader(words, chosen)
            unlike = 0 if spans else sum(strict(each.source) is None for each in origins)
            return Reading(best, lineage, _tag_names(subject, split, chosen), reader, unlike)
        untraced = f"the words in {lineage.place} do not become the tokens of the rows: is it the same tokenizer?"
    raise NotChecked(
        untraced or "words and tags were not found: pass raw= and columns=, such as ('tokens', 'ner_tags')"
    )


# Columns --------------------------------------------------------------------------------------------------------------


def _strings(value: Any) -> list[str] | None:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        return value.split()
    if isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value):
        return list(value)
    return None


def _tags(value: Any) -> list[Any] | None:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, str):
        return value.replace(",", " ").split()
    if isinstance(value, (list, tuple)) and all(isinstance(each, (str, int)) for each in value):
        return list(value)
    return None


def _reader(
    words: str, tags: str, *, loose: bool = False, spans: bool = False
) -> Callable[[Row], tuple[list[str], list[Any]] | None]:
    def pair(row: Row) -> tuple[list[str], list[Any]] | None:
        if spans:
            return words_and_tags(row.get(words), row.get(tags))
        if words == tags:
            return _unzipped(row.get(words))
        found, marks = _strings(row.get(words)), _tags(row.get(tags))
        if found is None or marks is None or (len(found) != len(marks) and not loose):
            return None
        return found, [*marks, *[None] * (len(found) - len(marks))][: len(found)]

    return pair


def _unzipped(value: Any) -> tuple[list[str], list[Any]] | None:
    """Split a list of (word, ..., tag), such as the lines of a CoNLL file."""
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if not all(isinstance(each, (list, tuple)) and len(each) >= 2 for each in value):
        return None
    words, tags = [each[0] for each in value], [each[-1] for each in value]
    if all(isinstance(each, str) for each in words) and all(isinstance(each, (str, int)) for each in tags):
        return words, tags
    return None


def _pairs(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Yield the pairs of columns that can be words and tags: equally long in every row."""
    if not rows:
        return
    names = [name for name in rows[0] if all(name in row for row in rows)]
    for name in names:
        if all(_unzipped(row[name]) for row in rows):
            yield name, name
    for words in names:
        if any(_strings(row[words]) is None for row in rows):
            continue
        if not any(len(_strings(row[words]) or ()) > 1 for row in rows):
            continue
        for tags in names:
            if tags != words and all(_reader(words, tags)(row) is not None for row in rows):
                yield words, tags


def _unlike_pairs(rows: Sequence[Row], names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield pairs of columns of which one has the model's label names in every row, and the other has other strings."""
    for tags in rows[0] if rows else ():
        marks = [_strings(row.get(tags)) for row in rows]
        if any(not each or not set(each) <= set(names) for each in marks):
            continue
        for words in rows[0]:
            if words != tags and all(_strings(row.get(words)) for row in rows):
                yield words, tags


def _rank(subject: Subject, sentences: Sequence[Sentence], tags: str | None) -> tuple[int, bool, float, int]:
    """Order pairs of columns: rows traced, tags among the model's names, labels that depend on tags, column's name."""
    if not sentences or tags is None:
        return 0, False, 0.0, 0
    marks = {tag for sentence in sentences for tag in sentence.tags if tag is not None}
    named = subject.names is not None and marks <= set(subject.names)
    return len(sentences), named, dependence(sentences), int("ner" in tags) + int("tag" in tags or "label" in tags)


def dependence(sentences: Sequence[Sentence]) -> float:
    """Return how well the tags tell the labels, from 0 to 1: mutual information by the entropy of the labels."""
    import math

    seen = Counter(
        (sentence.tags[word], sentence.labels[place])
        for sentence in sentences
        for place, word in enumerate(sentence.word_of)
        if word is not None and sentence.labels[place] != IGNORED
    )
    total = sum(seen.values())
    by_tag: Counter[Any] = Counter()
    by_label: Counter[int] = Counter()
    for (tag, label), count in seen.items():
        by_tag[tag] += count
        by_label[label] += count
    entropy = -sum(count / total * math.log(count / total) for count in by_label.values())
    shared = sum(
        count / total * math.log(count * total / (by_tag[tag] * by_label[label]))
        for (tag, label), count in seen.items()
    )
    # Parts of speech nearly tell the entity tag, because there are many of them: more tags than labels count less.
    return round(shared / entropy, 2) / max(1.0, len(by_tag) / max(1, len(by_label))) if entropy else 0.0


def _tag_names(subject: Subject, split: Split, column: str) -> list[str] | None:
    """Return the names of a column of class labels."""
    sets = [split.dataset, *(call.source for call in subject.maps), subject.raw]
    for each in sets:
        features = getattr(each, "features", None)
        feature = features.get(column) if isinstance(features, Mapping) else None
        for inner in (getattr(feature, "feature", None), feature[0] if isinstance(feature, list) else None):
            names = getattr(inner, "names", None)
            if names:
                return [str(name) for name in names]
    return None


# Tokens ---------------------------------------------------------------------------------------------------------------


def _together(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int]]:
    encoded = tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)
    return ints(encoded["input_ids"]), [int(word) for word in encoded.word_ids()]


def _word_by_word(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int]]:
    ids: list[int] = []
    word_of: list[int] = []
    for index, word in enumerate(words):
        made = tokenizer.encode(word, add_special_tokens=False)
        ids += made
        word_of += [index] * len(made)
    return ids, word_of


def _spaced(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int]]:
    return _word_by_word(tokenizer, [word if index == 0 else f" {word}" for index, word in enumerate(words)])


def _as_text(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int]]:
    encoded = tokenizer(" ".join(words), add_special_tokens=False, return_offsets_mapping=True)
    ends: list[int] = []
    for word in words:
        ends.append((ends[-1] + 1 if ends else 0) + len(word))
    word_of = [next(index for index, end in enumerate(ends) if stop <= end) for _, stop in encoded["offset_mapping"]]
    return ints(encoded["input_ids"]), word_of


def _lowered(tokenizer: Any, words: Sequence[str]) -> tuple[list[int], list[int]]:
    return _together(tokenizer, [word.lower() for word in words])


WAYS: tuple[TokensOfWords, ...] = (_together, _word_by_word, _spaced, _as_text, _lowered)
"""The ways in which scripts tokenize words."""


def _sentences(
    subject: Subject,
    origins: Sequence[Origin],
    rows: Sequence[Row],
    pair: Callable[[Row], tuple[list[str], list[Any]] | None],
    tokenizer: Any,
) -> list[Sentence]:
    """Return the rows whose tokens are those of their words, in the way that explains most rows."""
    special = special_ids(tokenizer)
    best: list[Sentence] = []
    for way in WAYS:
        found: list[Sentence] = []
        for number, (origin, row) in enumerate(zip(origins, rows, strict=True)):
            if number == 12 and not found:
                break
            read = pair(origin.source)
            sentence = _sentence(origin, row, read, way, tokenizer, special) if read else None
            if sentence is not None:
                found.append(sentence)
        if len(found) > len(best):
            best = found
        if len(best) == len(origins):
            break
    return best


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the ids of tokens that stand for no text. The unknown token does, and so may the user's own."""
    marks = (getattr(tokenizer, f"{name}_token_id", None) for name in ("pad", "bos", "eos", "cls", "sep", "mask"))
    return frozenset(each for each in marks if each is not None)


def _sentence(
    origin: Origin,
    row: Row,
    read: tuple[list[str], list[Any]],
    way: TokensOfWords,
    tokenizer: Any,
    special: frozenset[int],
) -> Sentence | None:
    ids, labels = ints(row[IDS]), row["labels"]
    if len(labels) != len(ids) or any(isinstance(label, (list, float)) for label in labels):
        return None
    places = [place for place, each in enumerate(ids) if each not in special]
    try:
        whole, words = way(tokenizer, read[0])
    except Exception:  # such as a slow tokenizer without word ids, or one without offsets
        return None
    start = find([ids[place] for place in places], whole)
    if start is None or not places:
        return None
    word_of: list[int | None] = [None] * len(ids)
    for step, place in enumerate(places):
        word_of[place] = words[start + step]
    return Sentence(origin, read[0], read[1], ids, ints(labels), word_of)


def find(part: Sequence[int], whole: Sequence[int]) -> int | None:
    """Return where a part begins in a whole, or None.

    >>> find([2, 3], [1, 2, 3])
    1
    """
    size = len(part)
    for start in range(len(whole) - size + 1):
        if list(whole[start : start + size]) == list(part):
            return start
    return None
