"""What a topic is made of: nouns, sentence frames, and how English words inflect.

A frame is a pattern of words, separated by spaces:

    {slot}      a name or a phrase: its kind, with a digit where a frame has two of a kind
    [verb]      a verb in the clause's tense, agreeing in number with its subject: the first slot, or after "that" the
    first slot there
    [verb+]     the same where the subject is plural whatever its slot ("{person} and {person2} [meet+]")
    [verb-]     the same where it is singular
    <his>       his, her, its or their: the subject's

`{noun}` is a noun phrase of the topic, `{bare}` the same without article, `{nouns}` in the plural without article,
`{job}` what a person does. `{anyone}` is whoever may act: a person, a company, a club, a body or a country, by its
short name, so that the context leaves open what it is.

Below its English a frame stands in French (`=`, in the notation of `french`) and as questions (`?`, each with the slot
that answers it, in the notation of `questions`). A topic's frames stand in the order of how newsworthy they are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    singular: str
    plural: str


@dataclass(frozen=True)
class Question:
    """A pattern that asks for what fills `slot`."""

    slot: str
    pattern: str


@dataclass(frozen=True)
class Frame:
    """A clause with open slots, in each of its tellings."""

    english: str
    french: str
    questions: tuple[Question, ...]

    @property
    def is_sentence(self) -> bool:
        """Not a line of a table ("Weston 3-1 Harlow")."""
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
