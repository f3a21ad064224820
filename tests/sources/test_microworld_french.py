"""The microworld in French: real agreement, elision and contraction, from the same sentences as the English."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from itertools import product

import pytest

from touchstone.sources import MicroworldCheckpoint, MicroworldData, SourceError, fingerprint, open_source
from touchstone.sources.microworld import sentence
from touchstone.sources.microworld.english import running_text, tell
from touchstone.sources.microworld.french import french_text
from touchstone.sources.microworld.french_joining import begins_with_vowel, join
from touchstone.sources.microworld.french_words import (
    ADJECTIVES,
    JOBS,
    NOUNS,
    VERBS,
    Agreement,
    FrenchVerb,
    feminine_of,
    nationality,
    plural_of,
)
from touchstone.sources.microworld.grammar import Clause, Filler, Mention, Phrase, Sentence, Term, Value
from touchstone.sources.microworld.names import SHARED, Entity, Split
from touchstone.sources.microworld.topics import TOPICS, Frame, Noun

ROWS = 1500
TINY = MicroworldCheckpoint(architecture="bert", layers=1, hidden=32, heads=2)

MAN = Mention(Entity("person", "PER", ("Orek", "Holer"), ("Holer",), False), False)
WOMAN = Mention(Entity("person", "PER", ("Dela", "Norini"), ("Norini",), True), False)
WOMAN_BY_SURNAME = Mention(WOMAN.entity, True)
TOWN = Mention(Entity("town", "LOC", ("Alton",), ("Alton",)), False)
TOWN2 = Mention(Entity("town", "LOC", ("Weston",), ("Weston",)), False)
CLUB = Mention(Entity("club", "ORG", ("Ulburg", "City"), ("Ulburg",)), False)
CLUB2 = Mention(Entity("club", "ORG", ("Parwell", "Rovers"), ("Parwell",)), False)
COMPANY = Mention(Entity("company", "ORG", ("Tamman", "&", "Sons"), ("Tamman",)), False)
COMPANY2 = Mention(Entity("company", "ORG", ("Osex", "Inc"), ("Osex",)), False)
BANK = Mention(Entity("body", "ORG", ("Bank", "of", "Alton"), ("Bank", "of", "Alton")), False)
MUSEUM = Mention(Entity("body", "ORG", ("Museum", "of", "Weston"), ("Museum", "of", "Weston")), False)
MASCULINE = Mention(Entity("country", "LOC", ("Kelstan",), ("Kelstan",)), True)
FEMININE = Mention(Entity("country", "LOC", ("Norlia",), ("Norlia",)), True)
VOWEL = Mention(Entity("country", "LOC", ("Alland",), ("Alland",)), True)
BARE = Mention(Entity("country", "LOC", ("Uloo",), ("Uloo",)), True)
MOUNT = Mention(Entity("landmark", "LOC", ("Mount", "Osville"), ("Mount", "Osville")), False)
RIVER = Mention(Entity("landmark", "LOC", ("River", "Welard"), ("River", "Welard")), False)
CUP = Mention(Entity("event", "MISC", ("Alton", "Cup"), ("Alton", "Cup")), False)
PRIZE = Mention(Entity("event", "MISC", ("Holer", "Prize"), ("Holer", "Prize")), False)
PEOPLE = Mention(Entity("people", "MISC", ("Norlandian",), ("Norlandian",)), False)
PEOPLE2 = Mention(Entity("people", "MISC", ("Kelish",), ("Kelish",)), False)


def phrase(noun: str, adjective: str | None = None, *, article: str = "the", plural: bool = False) -> Phrase:
    return Phrase(Noun(noun, noun), adjective, plural, article)  # type: ignore[arg-type]


def some(noun: str, adjective: str) -> Phrase:
    return phrase(noun, adjective, article="", plural=True)


def clause(english: str, *, past: bool = True, **slots: Filler) -> Clause:
    frame = next(frame for topic in TOPICS for frame in topic.frames if frame.english.startswith(english))
    return Clause(frame, past, tuple(slots.items()))


def french(english: str, *, past: bool = True, **slots: Filler) -> str:
    return french_text(Sentence((clause(english, past=past, **slots),)))


NONE: dict[str, Filler] = {"when": None}
BY_HAND: list[tuple[str, str]] = [
    # An article elides; an adjective follows its noun and agrees.
    (
        "L'équipe amère a frappé Alton lundi.",
        french("{noun} [hit]", noun=phrase("team", "bitter"), town=TOWN, when=Value("day", 0)),
    ),
    # An adjective that precedes, in the form before a vowel.
    (
        "La Banque d'Alton a rejeté un nouvel accord en mai.",
        french("the {body} [reject]", body=BANK, noun=phrase("deal", "new", article="a"), when=Value("month", 4)),
    ),
    # The indefinite plural before such an adjective is `de`.
    (
        "Le Musée de Weston rejette de nouvelles lois.",
        french("the {body} [reject]", past=False, body=MUSEUM, noun=some("law", "new"), **NONE),
    ),
    # A profession has a gender, a people agrees with it.
    (
        "L'attaquante norlandienne Dela Norini a manqué la Coupe d'Alton à cause du but tardif.",
        french(
            "{people} {job} {person} [miss]",
            people=PEOPLE,
            job=Term("striker"),
            person=WOMAN,
            event=CUP,
            noun=phrase("goal", "late"),
        ),
    ),
    # A surname alone tells no gender.
    (
        "Le gardien Norini a marqué 3 buts contre Ulburg City la semaine dernière.",
        french(
            "{job} {person} [score]",
            job=Term("goalkeeper"),
            person=WOMAN_BY_SURNAME,
            number=Value("number", 3),
            club=CLUB,
            when=Value("recent", 0),
        ),
    ),
    # Participles agree where the auxiliary is être.
    ("La rivière Welard est montée de 7 mètres hier.",
     french("{landmark} [rise]", landmark=RIVER, number=Value("number", 7), when=Value("recent", 2))),
    (
        "La Norlia est partie pour l'Alland en 1999.",
        french("{anyone} [leave] for", anyone=FEMININE, anyone2=VOWEL, when=Value("year", 1999)),
    ),
    (
        "Le Kelstan part pour Uloo.",
        french("{anyone} [leave] for", past=False, anyone=MASCULINE, anyone2=BARE, **NONE),
    ),
    # de + le, à + le, à + les; que before a vowel.
    (
        "Orek Holer a dit au Kelstan que l'impôt était public.",
        french("{person} [tell] {anyone}", person=MAN, anyone=MASCULINE, noun=phrase("tax"), adjective=Term("public")),
    ),
    (
        "Dela Norini échappe aux vieux procès près du mont Osville.",
        french(
            "{person} [escape]",
            past=False,
            person=WOMAN,
            noun=phrase("trial", "old", plural=True),
            landmark=MOUNT,
        ),
    ),
    (
        "Alton a nié qu'Osex Inc prépare des obligations étrangères.",
        french("{anyone} [deny]", anyone=TOWN, company=COMPANY2, noun=some("bond", "foreign")),
    ),
    # de + indefinite plural is de.
    (
        "Orek Holer a accusé Dela Norini d'armes volées.",
        french("{anyone} [accuse]", anyone=MAN, anyone2=WOMAN, noun=some("gun", "stolen")),
    ),
    # Countries and their prepositions; money, percent.
    (
        "L'action nette baisse de 5 % au Kelstan.",
        french(
            "{noun} [fall]",
            past=False,
            noun=phrase("share", "net"),
            percent=Value("percent", 5),
            country=MASCULINE,
            when=None,
        ),
    ),
    (
        "Les billets en Norlia coûtent 1 million de dollars.",
        french("{nouns} in {country} [cost]", past=False, nouns=phrase("ticket", plural=True, article=""),
               country=FEMININE, money=Value("money", 1)),
    ),
    (
        "Tamman & Sons a vendu son entreprise de Weston à Osex Inc.",
        french("{company} [sell] <his>", company=COMPANY, town=TOWN2, bare=phrase("company"), company2=COMPANY2),
    ),
    (
        "Le roman parle de Dela Norini, une actrice célèbre du Kelstan.",
        french("{noun} [tell] of", past=False, noun=phrase("novel"), person=WOMAN, adjective=Term("famous"),
               job=Term("actor"), country=MASCULINE),
    ),
    (
        "Le roman a parlé d'Orek Holer, un bel acteur d'Alland.",
        french("{noun} [tell] of", noun=phrase("novel"), person=MAN, adjective=Term("beautiful"), job=Term("actor"),
               country=VOWEL),
    ),
    # Two of a kind together; reflexive; coordinated adjectives.
    (
        "Des crises norlandiennes et keloises secrètes se sont rencontrées près de la rivière Welard.",
        french("{people} and {people2} {nouns}", people=PEOPLE, people2=PEOPLE2,
               nouns=some("crisis", "secret"), landmark=RIVER),
    ),
    (
        "Dela Norini et Orek Holer se sont rencontrés au Prix Holer à Alton.",
        french("{person} and {person2} [meet+]", person=WOMAN, person2=MAN, event=PRIZE, town=TOWN),
    ),
    (
        "Dela Norini et Orek Holer remportent le Prix Holer pour leurs médicaments bleus.",
        french("{person} and {person2} [win+]", past=False, person=WOMAN, person2=MAN, event=PRIZE,
               bare=some("drug", "blue")),
    ),
    (
        "La Norlandienne Dela Norini dirige sa campagne à Weston.",
        french("{people} {person} [lead]", past=False, people=PEOPLE, person=WOMAN, bare=phrase("campaign", article=""),
               town=TOWN2),
    ),
    (
        "Dela Norini, née à Alton, a chanté à la Coupe d'Alton.",
        french("{person} , born in", person=WOMAN, town=TOWN, event=CUP, **NONE),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "told"), BY_HAND)
def test_french_is_what_a_person_would_write(expected: str, told: str) -> None:
    assert expected == told


def test_a_surname_has_the_gender_that_his_or_her_tells() -> None:
    """And none from `its`, which is a company's."""
    named = clause("{company} [name]", company=COMPANY, person=WOMAN_BY_SURNAME, job=Term("director"))
    won = clause(
        "{job} {person} [win] the", job=Term("actor"), person=WOMAN_BY_SURNAME, event=CUP, bare=phrase("film"), **NONE
    )
    assert french_text(Sentence((named,))) == "Tamman & Sons a nommé Norini comme son directeur."
    assert french_text(Sentence((won,))) == "L'actrice Norini a remporté la Coupe d'Alton pour son film."


def test_what_stands_around_a_clause_is_told() -> None:
    hit = clause("{noun} [hit]", noun=phrase("storm"), town=TOWN, when=None)
    left = clause("{person} [leave] {anyone}", past=False, person=WOMAN, anyone=FEMININE, when=None)
    assert (
        french_text(Sentence((hit,), place=TOWN2, speaker=FEMININE, emoji="⚽"))
        == "À Weston, la tempête a frappé Alton, a dit la Norlia. ⚽"
    )
    assert (
        french_text(Sentence((left, hit), connective="while"))
        == "Dela Norini quitte la Norlia, tandis que la tempête a frappé Alton."
    )
    assert (
        french_text(Sentence((hit,), style="dateline", place=TOWN2, day=1))
        == "Weston, le 1er février - la tempête a frappé Alton."
    )
    assert french_text(Sentence((hit,), style="headline")) == "LA TEMPÊTE A FRAPPÉ ALTON"
    assert french_text(Sentence((left,), stray=True)) == "Dela Norini quitte la Norlia. \u200f"
    assert (
        french_text(Sentence((clause("{day} :", day=Value("day", 4), club=CLUB, club2=CLUB2, town=TOWN),)))
        == "Vendredi : Ulburg City Parwell Rovers Alton"
    )


def test_words_are_joined_as_french_joins_them() -> None:
    assert join(["le", "hôtel", "de", "le", "haut", "mont", ",", "le", "haut"]) == "l'hôtel du haut mont, le haut"
    assert join(["de", "Éloo", "à", "les", "Açores", "que", "il", "se", "voit"]) == "d'Éloo aux Açores qu'il se voit"
    assert join(["de", "des", "films", ",", "de", "des", "amis"]) == "de films, d'amis"
    assert join(["de", "de Holer"]) == "de de Holer"
    assert [begins_with_vowel(word) for word in ("Ål", "hôtel", "haute", "Hal", "東京")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_words_inflect() -> None:
    assert [plural_of(word) for word in ("animal", "tableau", "prix", "final", "mur")] == [
        "animaux",
        "tableaux",
        "prix",
        "finals",
        "murs",
    ]
    assert [feminine_of(word) for word in ("amer", "dangereux", "tardif", "ancien", "annuel", "rare", "fort")] == [
        "amère",
        "dangereuse",
        "tardive",
        "ancienne",
        "annuelle",
        "rare",
        "forte",
    ]
    feminine = Agreement(feminine=True, plural=True)
    assert [nationality(people).agreeing(feminine) for people in ("Norlandian", "Kelish", "Tamese", "Rani")] == [
        "norlandiennes",
        "keloises",
        "tamaises",
        "ranites",
    ]
    partir: FrenchVerb = VERBS["partir"]
    assert (partir.past(feminine), partir.present(feminine)) == ("sont parties", "partent")


def test_every_word_of_every_topic_has_its_french() -> None:
    for topic in TOPICS:
        assert {noun.singular for noun in topic.nouns} - set(NOUNS) == set()
        assert set(topic.adjectives) - set(ADJECTIVES) == set()
        assert set(topic.jobs) - set(JOBS) == set()
    used = {verb for topic in TOPICS for frame in topic.frames for verb in re.findall(r"\[(\w+)", frame.french)}
    assert used == set(VERBS)


@cache
def pairs(split: Split, *, seed: int = 0) -> list[tuple[str, str]]:
    told = [sentence(index, seed=seed, split=split) for index in range(ROWS)]
    return [(running_text([one]), french_text(one)) for one in told]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_frame_is_told_in_both_languages_without_a_gap(seed: int) -> None:
    told: Counter[Frame] = Counter()
    for index in range(ROWS):
        one = sentence(index, seed=seed, split="train")
        told.update(clause.frame for clause in one.clauses)
    for split in ("train", "validation"):
        for english, target in pairs(split, seed=seed):
            for text in (english, target):
                assert text == text.strip(" ") != ""
                assert not re.search(r"[{}\[\]<>_=~]|  | [.,]|None|' ", text), text
    assert {frame for topic in TOPICS for frame in topic.frames} == set(told)


def test_no_elision_or_contraction_is_missed() -> None:
    for _, target in pairs("train"):
        # Not before a name of another script, and a name may itself begin with "de".
        assert not re.search(r"\b(le|la|que|se) [aeiouéèêâîôœAEIOUÉÂ]", target), target
        assert not re.search(r"\b(de|à) les? ", target), target
        assert not re.search(r"\bde des ", target), target


def test_names_are_the_same_in_both_languages() -> None:
    translated = {"Bank", "University", "Court", "Museum", "Institute", "of", "Mount", "Lake", "River", "Cape"}
    translated |= {"Cup", "Prize", "Treaty", "Trophy"}
    for index in range(ROWS):
        one = sentence(index, seed=0, split="train")
        telling, target = tell(one), french_text(one)
        if one.style == "headline":
            continue
        for span in telling.spans:
            if span.type != "MISC" or telling.words[span.end - 1] in ("Cup", "Prize"):
                for word in telling.words[span.start : span.end]:
                    assert word in translated or word in target or word.lower() in target, (word, target)


def test_no_name_of_validation_occurs_in_training() -> None:
    """Nor does the French of a people (norlandien): no two people share a form."""
    seen = {word.upper() for _, target in pairs("train") for word in re.split(r"[\s',.]+", target)}
    shared = {word.upper() for word in SHARED}
    names: set[str] = set()
    for index in range(ROWS):
        telling = tell(sentence(index, seed=0, split="validation"))
        for span in telling.spans:
            names |= {word.upper() for word in telling.words[span.start : span.end] if len(word) != 2}
        peoples = [telling.words[span.start] for span in telling.spans if span.end == span.start + 1]
        for people in peoples:
            if people.endswith(("ian", "ish", "ese", "i")):
                forms = [
                    nationality(people).agreeing(Agreement(*two)).upper() for two in product([False, True], repeat=2)
                ]
                names |= set(forms)
    assert len(names - shared) > 1000
    assert (names - shared) & seen == set()


def test_copying_the_source_is_a_poor_translation() -> None:
    """Words in common are names and numbers: four words in a row hardly ever."""
    bleu = pytest.importorskip("sacrebleu").corpus_bleu
    sources, targets = zip(*pairs("validation"), strict=True)
    assert bleu(list(sources), [list(targets)]).score < 30


def test_columns_hold_the_sentence_of_words() -> None:
    source = open_source(MicroworldData(train=50, validation=20), TINY)
    rows = source.examples("train", columns=("source", "target", "words"))
    assert rows.column_names == ["source", "target", "words"]
    for row in rows:
        assert "".join(row["words"]) == row["source"].replace(" ", "")
    assert pairs("train")[:50] == list(zip(rows["source"], rows["target"], strict=True))


def test_the_translations_are_those_that_expectations_were_measured_on() -> None:
    rows = open_source(MicroworldData(train=300, validation=1), TINY).examples("train", columns=("source", "target"))
    assert fingerprint(rows) == "8cefe009958e149c0097adbf27599e2306ab43708e93a6f6759d93caa8caa63d"


def test_a_column_that_is_not_there_is_an_error() -> None:
    with pytest.raises(SourceError, match="source, target"):
        open_source(MicroworldData(train=1, validation=1), TINY).examples("train", columns=("french",))
