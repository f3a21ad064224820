"""The microworld's headlines and questions, made of the same documents as `text`."""

from __future__ import annotations

import re
from functools import cache

import datasets
import pytest

from touchstone.sources import MicroworldCheckpoint, MicroworldData, fingerprint, open_source
from touchstone.sources.microworld import document
from touchstone.sources.microworld.english import page, running_text
from touchstone.sources.microworld.grammar import Clause, Document, Mention, Phrase, Sentence, Term, Value
from touchstone.sources.microworld.headlines import LEAD, Headlined, headline, headline_pattern, headlined, report
from touchstone.sources.microworld.names import SHARED, Entity, Split
from touchstone.sources.microworld.questions import Asked, asked, passage
from touchstone.sources.microworld.topics import TOPICS, Noun

ROWS = 400
TINY = MicroworldCheckpoint(architecture="bert", layers=1, hidden=32, heads=2)
WOMAN = Mention(Entity("person", "PER", ("Dela", "Norini"), ("Norini",), True), False)
CLUB = Mention(Entity("club", "ORG", ("Ulburg", "City"), ("Ulburg",)), False)
PEOPLE = Mention(Entity("people", "MISC", ("Kelish",), ("Kelish",)), False)
CUP = Mention(Entity("event", "MISC", ("Alton", "Cup"), ("Alton", "Cup")), False)


@cache
def documents(split: Split) -> list[Document]:
    return [document(index, seed=0, split=split) for index in range(ROWS)]


@cache
def headlines(split: Split) -> list[Headlined]:
    return [headlined(one) for one in documents(split)]


@cache
def questions(split: Split) -> list[Asked]:
    return [asked(one) for one in documents(split)]


def clause(english: str, *, past: bool = True, **slots: Mention | Phrase | Value | Term | None) -> Clause:
    frame = next(frame for topic in TOPICS for frame in topic.frames if frame.english.startswith(english))
    return Clause(frame, past, tuple(slots.items()))


class Written(Document):
    """A document whose sentences are given."""

    def sentence(self, position: int) -> Sentence:
        return self.told[position]  # type: ignore[attr-defined, no-any-return]


# Pages


def test_a_page_says_where_each_word_stands() -> None:
    for one in documents("train")[:100]:
        whole = page(one)
        assert running_text(one) == whole.text
        for telling, places in zip(whole.tellings, whole.words, strict=True):
            assert telling.words == [whole.text[start:end] for start, end in places]


# Headlines


def test_a_headline_drops_what_newspapers_drop() -> None:
    told = [
        clause("{person} , who [play]", person=WOMAN, club=CLUB, event=CUP, when=Value("day", 4)),
        clause("{people} {job} {person} [miss]", people=PEOPLE, job=Term("striker"), person=WOMAN, event=CUP,
               noun=Phrase(Noun("goal", "goals"), "late", True, "the")),
        clause("{club} coach", club=CLUB, person=WOMAN, bare=Phrase(Noun("loss", "losses"), "bitter", False, "")),
    ]  # fmt: skip
    assert [headline(one) for one in told] == [
        "Norini wins Alton Cup",
        "Norini misses Alton Cup because of goals",
        "Ulburg coach Norini praises loss",
    ]


def test_a_headline_keeps_no_subordinate_part_of_any_frame() -> None:
    patterns = {headline_pattern(frame.english) for topic in TOPICS for frame in topic.frames}
    assert "{person} guilty of {noun}" in patterns
    assert "{town} famous for {nouns}" in patterns
    assert "{noun} from {landmark} {adjective}" in patterns
    for pattern in patterns:
        assert not re.search(r"[,.<>]|\b(the|a)\b|\{when\}", pattern), pattern


def test_a_headline_is_of_the_biggest_news_near_the_beginning() -> None:
    for one, made in zip(documents("train"), headlines("train"), strict=True):
        clauses = [clause for sentence in report(one)[:LEAD] for clause in sentence.clauses]
        if clauses:
            ranks = [one.topic.frames.index(clause.frame) for clause in clauses]
            assert headline(clauses[ranks.index(min(ranks))]) == made.summary


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_summary_is_shorter_than_its_document(split: Split) -> None:
    assert [running_text(report(one)) for one in documents(split)] == [made.document for made in headlines(split)]
    for made in headlines(split):
        assert 0 < len(made.summary) < len(made.document)
        assert not re.search(r"[{}\[\]<>]|  |^ | $|\.$|None", made.summary), made.summary


def test_the_news_is_often_not_in_the_first_sentence() -> None:
    """Else a baseline that takes it would have won."""
    firsts = sum(
        any(headline(clause) == made.summary for clause in one.sentence(0).clauses)
        for one, made in zip(documents("validation"), headlines("validation"), strict=True)
    )
    assert 0.15 < firsts / ROWS < 0.45


def test_the_first_sentences_are_a_poor_summary() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    leads = [" ".join(running_text([sentence]) for sentence in list(one)[:3]) for one in documents("validation")]
    made = headlines("validation")
    scores = [scorer.score(one.summary, lead)["rougeL"].fmeasure for one, lead in zip(made, leads, strict=True)]
    assert sum(scores) / ROWS < 0.4


def test_a_document_in_which_nothing_happens_still_has_a_summary_and_a_question() -> None:
    quiet = Sentence((), style="foreign", foreign="彼女は待つ。")
    listing = Sentence((), style="listing", names=(WOMAN, CLUB, CUP, WOMAN))

    for told, summary, question, answer in [
        ([quiet, quiet], "彼女は待つ", "What stands here first?", "彼女は待つ。"),
        ([listing, quiet], "Dela Norini Ulburg", "Which name stands first?", "Dela Norini"),
    ]:
        whole = Written(0, "train", 0, TOPICS[0], (), 2)
        object.__setattr__(whole, "told", told)
        assert headlined(whole).summary == summary
        made = asked(whole)
        assert (made.question, made.answers[0].text, made.answers[0].start) == (question, answer, 0)


# Questions


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_answer_is_a_span_of_its_context(split: Split) -> None:
    for one, made in zip(documents(split), questions(split), strict=True):
        assert running_text(passage(one)) == made.context
        assert made.answers
        for answer in made.answers:
            assert answer.text == made.context[answer.start : answer.start + len(answer.text)]
            assert answer.text == answer.text.strip() != ""
        assert not re.search(r"[{}\[\]<>+]|  |^ | \?|None", made.question), made.question
        assert made.question.endswith("?")


def test_training_has_one_answer_and_validation_sometimes_more() -> None:
    assert {len(made.answers) for made in questions("train")} == {1}
    several = [made for made in questions("validation") if len(made.answers) > 1]
    assert 0.1 < len(several) / ROWS < 0.8
    assert all(len(made.answers) == len({answer.text for answer in made.answers}) for made in several)


def test_a_question_about_a_sentence_is_answered_by_it() -> None:
    from_london = clause("{club} [sign]", past=False, club=CLUB, job=Term("striker"), person=WOMAN, club2=CLUB,
                         money=Value("money", 3))  # fmt: skip
    whole = Written(0, "validation", 5, TOPICS[0], (), 1)
    object.__setattr__(whole, "told", [Sentence((from_london,))])
    made = asked(whole)
    expected = {
        "Who does Ulburg sign from Ulburg?": ["Dela Norini"],
        "How much does Ulburg pay for Norini?": ["$3 million"],
        "Which club signs Norini?": ["Ulburg City"],
    }
    plain = made.question.replace("Ulburg City", "Ulburg").replace("Dela Norini", "Norini")
    assert [answer.text for answer in made.answers] == expected[plain]


def test_every_frame_can_be_asked_about_whatever_is_left_out_of_it() -> None:
    for topic in TOPICS:
        for frame in topic.frames:
            assert any(question.slot != "when" for question in frame.questions), frame.english
            for question in frame.questions:
                assert f"{{{question.slot}}}" in frame.english
                assert f"{{{question.slot}}}" not in question.pattern
                assert set(re.findall(r"\{\w+\}", question.pattern)) <= set(re.findall(r"\{\w+\}", frame.english))


def test_answers_are_anywhere_and_far_into_long_documents_too() -> None:
    starts = [made.answers[0].start / len(made.context) for made in questions("train")]
    thirds = [sum(low <= start < low + 1 / 3 for start in starts) / ROWS for low in (0, 1 / 3, 2 / 3)]
    assert min(thirds) > 0.15
    assert any(asked(document(row, seed=0, split="train")).answers[0].start > 1000 for row in range(4 * ROWS))


def test_the_first_name_is_seldom_the_answer() -> None:
    firsts = 0
    for one, made in zip(documents("validation"), questions("validation"), strict=True):
        whole = page(passage(one))
        named = ((place, telling.spans[0]) for place, telling in enumerate(whole.tellings) if telling.spans)
        first = next(named, None)
        if first is None:
            continue
        start, end = whole.words[first[0]][first[1].start][0], whole.words[first[0]][first[1].end - 1][1]
        firsts += whole.text[start:end] in {answer.text for answer in made.answers}
    assert firsts / ROWS < 0.25


def test_names_in_questions_and_headlines_of_validation_do_not_occur_in_training() -> None:
    seen = {
        word.upper()
        for one, made in zip(questions("train"), headlines("train"), strict=True)
        for word in re.findall(r"[^\s,.?]+", f"{one.context} {one.question} {made.summary}")
    }
    shared = {word.upper() for word in SHARED}
    names = {
        word.upper()
        for one in documents("validation")
        for telling in page(one).tellings
        for span in telling.spans
        for word in telling.words[span.start : span.end]
        if len(word) != 2
    } - shared
    assert len(names) > 1000
    assert names & seen == set()
    more = [asked(document(row, seed=0, split="train")) for row in range(4 * ROWS)]
    forms = {made.question.split()[0] for made in questions("validation")}
    assert {made.question.split()[0] for made in more} >= forms


# Columns


def test_columns_are_those_of_squad() -> None:
    source = open_source(MicroworldData(train=20, validation=20), TINY)
    rows = source.examples("validation", columns=("question", "context", "answers", "document", "summary", "text"))
    assert rows.features["answers"] == {
        "text": datasets.List(datasets.Value("string")),
        "answer_start": datasets.List(datasets.Value("int32")),
    }
    for row in rows:
        assert row["context"] in row["text"]
        assert row["text"].startswith(row["document"])
    made = questions("validation")[:20]
    assert [[answer.start for answer in one.answers] for one in made] == [
        answers["answer_start"] for answers in rows["answers"]
    ]


def test_headlines_and_questions_are_those_that_expectations_were_measured_on() -> None:
    source = open_source(MicroworldData(train=300, validation=100), TINY)
    views: list[tuple[str, ...]] = [("document", "summary"), ("question", "context", "answers")]
    expected = [
        "41618a92c5e49c8dfee6de96e86cbdfdbc18c3633edccfbfb5d9dc6af3cba615",
        "76140bc6e2805fe75e9305b3eaf42359cc54031a327d98e497a2db988144acc4",
    ]
    assert [fingerprint(source.examples("validation", columns=columns)) for columns in views] == expected
