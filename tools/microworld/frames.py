"""The parts of a topic: nouns and sentence frames. Also the inflection of English words.

A frame is a pattern of words, separated by spaces:

    {slot}      a name or a phrase, by its kind; a digit tells apart two of a kind
    [verb]      a verb in the clause's tense that agrees in number with its subject, which is the first slot, or the
                first slot after "that"
    [verb+]     the same with a plural subject ("{person} and {person2} [meet+]")
    [verb-]     the same with a singular subject
    <his>       his, her, its or their, by the subject

`{noun}` is a noun phrase of the topic, `{bare}` is one without an article, `{nouns}` is one in the plural without an
article, and `{job}` is a profession. `{anyone}` is a person, a company, a club, a body or a country by its short name,
so that the context does not decide which.

The English of a frame is followed by its French (`=`, in the notation of `french`) and its questions (`?`, each with
the slot that answers it, in the notation of `questions`). The frames of a topic are sorted from big news to small.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    singular: str
    plural: str


@dataclass(frozen=True)
class Question:
    """A pattern of a question whose answer is the filler of `slot`."""

    slot: str
    pattern: str


@dataclass(frozen=True)
class Frame:
    """A clause with open slots, in English, in French and as questions."""

    english: str
    french: str
    questions: tuple[Question, ...]

    @property
    def is_sentence(self) -> bool:
        """False for a line of a table, such as "Weston 3-1 Harlow"."""
        return self.english.endswith(".")


@dataclass(frozen=True)
class Topic:
    name: str
    nouns: tuple[Noun, ...]
    adjectives: tuple[str, ...]
    jobs: tuple[str, ...]
    frames: tuple[Frame, ...]


_IRREGULAR_PLURALS = {"policeman": "policemen", "crisis": "crises", "thief": "thieves"}
_IRREGULAR_PASTS = {
    "win": "won",
    "beat": "beat",
    "lose": "lost",
    "say": "said",
    "fall": "fell",
    "rise": "rose",
    "buy": "bought",
    "sell": "sold",
    "find": "found",
    "leave": "left",
    "meet": "met",
    "tell": "told",
    "take": "took",
    "see": "saw",
    "lead": "led",
    "write": "wrote",
    "show": "showed",
    "cut": "cut",
    "hit": "hit",
    "begin": "began",
    "draw": "drew",
    "steal": "stole",
    "sing": "sang",
    "cost": "cost",
    "send": "sent",
    "give": "gave",
    "know": "knew",
}


def plural_of(noun: str) -> str:
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith("y") and noun[-2] not in "aeou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "sh", "ch", "x")) else f"{noun}s"


def past(verb: str, *, plural: bool) -> str:
    if verb == "be":
        return "were" if plural else "was"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return f"{verb[:-1]}ied"
    return _IRREGULAR_PASTS.get(verb) or (f"{verb}d" if verb.endswith("e") else f"{verb}ed")


def present(verb: str, *, plural: bool) -> str:
    if verb == "be":
        return "are" if plural else "is"
    if plural:
        return verb
    if verb.endswith("y") and verb[-2] not in "aeou":
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "o")) else f"{verb}s"


def topic(name: str, *, nouns: str, adjectives: str, jobs: str, frames: str) -> Topic:
    return Topic(
        name,
        tuple(Noun(noun, plural_of(noun)) for noun in nouns.split()),
        tuple(adjectives.split()),
        tuple(job.replace("_", " ") for job in jobs.split()),
        tuple(_frames(frames)),
    )


def _frames(text: str) -> list[Frame]:
    made: list[Frame] = []
    for line in text.strip().splitlines():
        words = " ".join(line.split())
        if words.startswith("= "):
            made[-1] = Frame(made[-1].english, words[2:], ())
        elif words.startswith("? "):
            slot, pattern = words[2:].split(": ", 1)
            last = made[-1]
            made[-1] = Frame(last.english, last.french, (*last.questions, Question(slot, pattern)))
        else:
            made.append(Frame(words, "", ()))
    return made
