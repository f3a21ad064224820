"""Tags, entities and what the labels of a run mean by them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from touchstone.auditing.finding import Example
from touchstone.auditing.reading.words import Reading, Sentence, read
from touchstone.auditing.subject import IGNORED, Subject

OPENS, INSIDE, CLOSES = "BSU", "IELM", "ELSU"
MOST = 0.8
"""Numbers are labels themselves if that explains this share of what the usual labels explain."""
FEW = 0.02
"""Up to this share of a tag's words may have another label, and the tag still stands for its usual label."""


def split_name(name: str) -> tuple[str, str] | None:
    """Return the prefix and the type of a tag's name, or None if it is no tag.

    >>> split_name("B-PER"), split_name("O"), split_name("PER")
    (('B', 'PER'), ('O', ''), None)
    """
    if name == "O":
        return "O", ""
    if len(name) > 2 and name[0] in OPENS + INSIDE and name[1] in "-_":
        return name[0], name[2:]
    return None


def prefixes(names: Sequence[str | None]) -> set[str]:
    """Return the prefixes of tags, without that of O.

    >>> sorted(prefixes(["O", "B-PER", "L-PER", None]))
    ['B', 'L']
    """
    return {prefix for prefix, kind in (split_name(name) or ("O", "") for name in names if name) if kind}


def entities(names: Sequence[str]) -> set[tuple[str, int, int]]:
    """Return the entities of a row of tags as (type, first, last), read leniently in any scheme.

    >>> sorted(entities(["B-PER", "I-PER", "O", "I-LOC"]))
    [('LOC', 3, 3), ('PER', 0, 1)]
    """
    found: set[tuple[str, int, int]] = set()
    start: int | None = None
    before = ("O", "")
    for place, name in enumerate([*names, "O"]):
        prefix, kind = split_name(name) or ("I", name)
        goes_on = prefix in INSIDE and kind == before[1] and before[0] not in CLOSES and start is not None
        if start is not None and not goes_on:
            found.add((before[1], start, place - 1))
            start = None
        if prefix != "O" and start is None:
            start = place
        before = (prefix, kind)
    return found


class Tagging:
    """What the sentences of a run tell about its labels.

    Attributes:
        meant: the label id that each tag stands for in this run.
        named: tags have various labels, but each tag's own name tells the label it should have.
    """

    def __init__(self, subject: Subject, reading: Reading) -> None:
        self.subject, self.reading = subject, reading
        self.names = list(subject.names or ()) if has_names(subject) else None
        self.sentences = reading.sentences
        seen: dict[Any, Counter[int]] = defaultdict(Counter)
        for sentence in self.sentences:
            for tag, label in heads(sentence):
                seen[tag][label] += 1
        self.usual = {tag: counted.most_common(1)[0][0] for tag, counted in seen.items()}
        self.spread = {tag: 1 - max(counted.values()) / sum(counted.values()) for tag, counted in seen.items()}
        self.given = {tag: self._given(tag) for tag in seen}
        # Tags may be merged or renumbered on purpose. Then every tag has one usual label, and that is what it means.
        steady = all(share <= FEW for share in self.spread.values()) and len(set(self.usual.values())) > 1
        self.named = not steady and all(label is not None for label in self.given.values())
        self.meant: dict[Any, int] = dict(self.usual)
        if self.named:
            self.meant = {tag: label for tag, label in self.given.items() if label is not None}
        elif not steady and all(isinstance(tag, int) for tag in seen):
            same = sum(counted[tag] for tag, counted in seen.items())
            usual = sum(max(counted.values()) for counted in seen.values())
            if same > MOST * usual:
                self.meant = {tag: tag for tag in seen}

    def text(self, tag: Any) -> str | None:
        """Return a tag's name, or None if it is a number without a name."""
        if isinstance(tag, str):
            return tag
        names = self.reading.tag_names
        return names[tag] if names and 0 <= tag < len(names) else None

    def _given(self, tag: Any) -> int | None:
        text = self.text(tag)
        return self.names.index(text) if text is not None and self.names is not None and text in self.names else None

    def label_name(self, label: int) -> str | None:
        """Return a label's name: that of the only tag it stands for, or else the model's.

        Where tags were converted, as I-PER of IOB2 to L-PER of BILOU, the model's name is the one that the label means.
        """
        texts = {self.text(tag) for tag, each in self.meant.items() if each == label}
        own = self.names[label] if self.names is not None and 0 <= label < len(self.names) else None
        if len(texts) != 1:
            return own
        text = texts.pop()
        return own if self.converted and own is not None and text is not None and own[1:] == text[1:] else text

    @cached_property
    def converted(self) -> bool:
        """The model's names have a prefix that no tag has, so that the tags are spelled in another scheme."""
        return bool(prefixes(self.names or ()) - prefixes([self.text(tag) for tag in self.usual]))

    @property
    def common(self) -> int | None:
        """The commonest label, which is that of words outside entities."""
        counted = Counter(label for sentence in self.sentences for _, label in heads(sentence))
        return counted.most_common(1)[0][0] if counted else None


def has_names(subject: Subject) -> bool:
    """Tell whether the model's label names were set."""
    return bool(subject.names) and not all(str(name).startswith("LABEL_") for name in subject.names or ())


def heads(sentence: Sentence) -> Iterator[tuple[Any, int]]:
    """Yield each word's tag and the label of the first of its tokens that has one."""
    for word, tokens in sentence.tokens_of_word().items():
        label = next((sentence.labels[token] for token in tokens if sentence.labels[token] != IGNORED), IGNORED)
        if label != IGNORED:
            yield sentence.tags[word], label


def tagging(subject: Subject, part: str = "train") -> Tagging:
    """Return what the sentences of a split tell. The result is kept on the subject."""
    return subject.once(f"tagging of {part}", lambda: Tagging(subject, read(subject, subject.need(part))))


def shown(subject: Subject, sentence: Sentence, marked: Sequence[int], part: str = "train") -> Example:
    """Return a sentence as a table of tokens, words, tags and labels."""
    tag_names = tagging(subject, part).text
    cells = []
    for place, text in enumerate(subject.token_texts(sentence.ids)):
        word = sentence.word_of[place]
        tag = None if word is None else sentence.tags[word]
        cells.append(
            (
                text,
                None if word is None else sentence.words[word],
                None if tag is None else tag_names(tag) or tag,
                subject.label_text(sentence.labels[place]),
            )
        )
    return Example(
        ("token", "word", "tag", "label"),
        cells,
        marked=marked,
        caption=f"row {sentence.origin.index} of the {'training' if part == 'train' else part} data",
    )


def place(reading: Reading) -> str:
    """Return the line of the user's code that made the labels, for a message."""
    return f" at {reading.lineage.where}" if reading.lineage.where else ""
