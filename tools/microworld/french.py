"""Write sentences in French.

The French of a frame is a pattern of words:

    {slot}                 a name or a phrase with its article
    {the slot}             with another article: `the`, `a`, `some` (indefinite plural), `his`, `their`, `no`
    {the nouns people}     with adjectives from further slots, in agreement (a people is a nationality)
    {the job person}       a profession in the gender of the person; `job` may be the English word of a profession
    {adjective noun}       an adjective that agrees with a slot, or with `m`, `f`
    {in town} {from town}  with the preposition of a place: à Weston, en Norlia, au Dalstan; de Norlia, du Dalstan
    [verb]                 a verb in the clause's tense that agrees with the first slot that can act, or with the first
                           one after `que`
    [verb:slot,slot]       a verb that agrees with these slots, or with `ms`, `fs`, `mp`, `fp`

`french_joining` joins the words. Names are not translated, except for words such as the Bank of Norlia: la Banque de
Norlia. A person who is named by surname alone is masculine, unless the English sentence has `her`. The past is the
passé composé, or the imperfect for states. Punctuation has plain spaces and the plain apostrophe; capitals keep their
accents.
"""

from __future__ import annotations

import re
from functools import cache

from tools.microworld.english import can_act
from tools.microworld.french_joining import begins_with_vowel, join
from tools.microworld.french_words import (
    ADJECTIVES,
    BODIES,
    CONNECTIVES,
    DAYS,
    EVENTS,
    FEMININE_COUNTRY_ENDINGS,
    JOBS,
    LANDMARKS,
    MASCULINE_COUNTRY_ENDINGS,
    MONTHS,
    NOUNS,
    RECENT,
    VERBS,
    Agreement,
    FrenchAdjective,
    is_feminine,
    nationality,
)
from tools.microworld.grammar import Clause, Filler, Mention, Phrase, Sentence, Term, Value

DETERMINERS = ("the", "a", "some", "his", "their", "no", "in", "from")
FIXED = {
    "m": Agreement(),
    "f": Agreement(feminine=True),
    "ms": Agreement(),
    "fs": Agreement(feminine=True),
    "mp": Agreement(plural=True),
    "fp": Agreement(feminine=True, plural=True),
}


def french_text(sentence: Sentence) -> str:
    """Return a sentence in French."""
    match sentence.style:
        case "foreign":
            return sentence.foreign
        case "listing":
            words: list[str] = []
            for position, mention in enumerate(sentence.names):
                words += [","] * (position % 3 == 2)
                words.append(" ".join(mention.words))
            return join(words)
    words = []
    if sentence.place is not None:
        place = " ".join(sentence.place.words)
        if sentence.style == "dateline":
            day = "1er" if sentence.day == 1 else str(sentence.day)
            words += [place, ",", "le", day, MONTHS[sentence.day % 12], "-"]
        else:
            words += ["à", place, ","]
    for position, clause in enumerate(sentence.clauses):
        if position:
            words[-1:] = [",", *CONNECTIVES[str(sentence.connective)].split()]
        words += ClauseInFrench(clause).words()
    if sentence.speaker is not None and words[-1] == ".":
        words[-1:] = [",", "a", "dit", *_named(sentence.speaker, "the"), "."]
    if sentence.emoji is not None:
        words.append(sentence.emoji)
    if sentence.style == "headline" and words[-1] == ".":
        del words[-1]
    text = join(words)
    text = text.upper() if sentence.style == "headline" else text[:1].upper() + text[1:]
    return f"{text} \u200f" if sentence.stray else text


class ClauseInFrench:
    """Write one clause by the French pattern of its frame."""

    def __init__(self, clause: Clause) -> None:
        self.clause = clause
        self.fillers: dict[str, Filler] = dict(clause.slots)
        acting = (filler for _, filler in clause.slots if can_act(filler))
        self.says_his_of = next(acting, None) if "<his>" in clause.frame.english else None

    def words(self) -> list[str]:
        words: list[str] = []
        subject: str | None = None
        for part in _parts(self.clause.frame.french):
            if part.startswith("{"):
                head = self._slot(part[1:-1].split(), words)
                if subject is None and head is not None:
                    subject = head
            elif part.startswith("["):
                infinitive, _, agreed = part[1:-1].partition(":")
                verb = VERBS[infinitive]
                agreement = self._agreement(*(agreed or str(subject)).split(","))
                words += (verb.past(agreement) if self.clause.past else verb.present(agreement)).split()
            else:
                if part == "que":
                    subject = None
                words.append(part)
        return words

    def _slot(self, parts: list[str], words: list[str]) -> str | None:
        """Add a slot to the words, and return its name if it can be a subject."""
        determiner = parts.pop(0) if parts[0] in DETERMINERS else ""
        head, *others = parts
        filler = self.fillers.get(head, Term(head))
        match filler:
            case Mention(entity=entity) if entity.role == "people":
                agreement = self._agreement(others[0])
                form = nationality(entity.full[0]).agreeing(agreement)
                # With an article it is a noun, which has a capital: la Norlandienne.
                words += _determined(determiner, agreement, form.capitalize() if determiner else form)
            case Mention():
                words += _named(filler, determiner or "the")
                return head
            case Phrase():
                words += self._phrase(filler, determiner, others)
                return head
            case Term(word) if word in JOBS and head != "adjective":
                agreement = self._agreement(others[0])
                adjectives = [self._adjective(other) for other in others[1:]]
                words += _nominal(determiner, agreement, JOBS[word][agreement.feminine], adjectives)
            case Term(word):
                words += ADJECTIVES[word].agreeing(self._agreement(others[0])).split()
            case Value():
                words += _value(filler)
        return None

    def _adjective(self, slot: str) -> FrenchAdjective:
        filler = self.fillers[slot]
        if isinstance(filler, Mention):
            return nationality(filler.entity.full[0])
        assert isinstance(filler, Term), f"{slot} is not an adjective"
        return ADJECTIVES[filler.word]

    def _phrase(self, phrase: Phrase, determiner: str, peoples: list[str]) -> list[str]:
        noun = NOUNS[phrase.noun.singular]
        adjectives = [self._adjective(people) for people in peoples]
        if phrase.adjective:
            adjectives.append(ADJECTIVES[phrase.adjective])
        word = noun.plural if phrase.plural else noun.singular
        determiner = determiner or phrase.article or "some"
        return _nominal(determiner, Agreement(noun.feminine, phrase.plural), word, adjectives)

    def _agreement(self, *slots: str) -> Agreement:
        """Return the agreement with all these slots together, or a fixed one such as "fp"."""
        if slots[0] in FIXED:
            return FIXED[slots[0]]
        each = [self._agreement_of(slot) for slot in slots]
        return Agreement(all(one.feminine for one in each), len(each) > 1 or each[0].plural)

    def _agreement_of(self, slot: str) -> Agreement:
        filler = self.fillers[slot]
        if isinstance(filler, Phrase):
            return Agreement(NOUNS[filler.noun.singular].feminine, filler.plural)
        assert isinstance(filler, Mention), f"nothing agrees with {slot} in {self.clause.frame.french!r}"
        entity = filler.entity
        if entity.role == "person":
            return Agreement(entity.feminine and (not filler.short or filler == self.says_his_of))
        return Agreement(is_feminine(entity))


@cache
def _parts(pattern: str) -> list[str]:
    return re.findall(r"\{[^}]*\}|\[[^\]]*\]|\S+", pattern)


def _nominal(determiner: str, agreement: Agreement, noun: str, adjectives: list[FrenchAdjective]) -> list[str]:
    """Return a noun with its determiner and adjectives. Two peoples are joined by `et`."""
    before, after = [], []
    for position, adjective in enumerate(adjectives):
        form = adjective.agreeing(agreement)
        if not adjective.precedes:
            both_peoples = position and adjective.people and adjectives[position - 1].people
            after += ["et", form] if both_peoples else form.split()
        elif agreement == Agreement() and begins_with_vowel(noun):
            before = [adjective.before_vowel]  # un nouvel accord
        else:
            before = [form]
    if determiner in ("some", "a") and agreement.plural and before:
        return ["d'" if begins_with_vowel(before[0]) else "de", *before, noun, *after]  # de nouvelles lois
    return [*_determined(determiner, agreement, *before, noun), *after]


def _determined(determiner: str, agreement: Agreement, *words: str) -> list[str]:
    feminine, plural = agreement.feminine, agreement.plural
    match determiner:
        case "the":
            article = "les" if plural else "la" if feminine else "le"
        case "a" | "some":
            article = "des" if plural else "une" if feminine else "un"
        case "his":
            vowel = begins_with_vowel(words[0])
            article = "ses" if plural else "sa" if feminine and not vowel else "son"  # son équipe
        case "their":
            article = "leurs" if plural else "leur"
        case _:
            return list(words)
    return [article, *words]


def _named(mention: Mention, determiner: str) -> list[str]:
    """Return a name with the article of a country, a river or a cup, or with the preposition of a place."""
    entity, words = mention.entity, mention.words
    match entity.role:
        case "country":
            return _country(words[0], determiner)
        case "body":
            return [*BODIES[words[0]].split(), "de", words[-1]]
        case "landmark":
            return [*LANDMARKS[words[0]].split(), words[-1]] if LANDMARKS[words[0]] else [" ".join(words)]
        case "event":
            return [*EVENTS[words[1]].split(), words[0]]
    name = " ".join(words)
    return {"in": ["à", name], "from": ["de", name]}.get(determiner, [name])


def _country(name: str, determiner: str) -> list[str]:
    feminine = name.endswith(FEMININE_COUNTRY_ENDINGS)
    if not feminine and not name.endswith(MASCULINE_COUNTRY_ENDINGS):
        return {"in": ["à", name], "from": ["de", name]}.get(determiner, [name])
    article = "la" if feminine else "le"
    if determiner == "in":
        return ["en", name] if feminine or begins_with_vowel(name) else ["à", article, name]
    if determiner == "from":
        return ["de", name] if feminine or begins_with_vowel(name) else ["de", article, name]
    return [article, name]


def _value(value: Value) -> list[str]:
    amount = value.amount
    match value.kind:
        case "money":
            return [str(amount), "million" if amount == 1 else "millions", "de", "dollars"]
        case "score":
            return [f"{amount // 6}-{amount % 6}"]
        case "day":
            return [DAYS[amount]]
        case "month":
            return ["en", MONTHS[amount]]
        case "year":
            return ["en", str(amount)]
        case "recent":
            return RECENT[amount].split()
        case "number" | "percent":
            return [str(amount)]
