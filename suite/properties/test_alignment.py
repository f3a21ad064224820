"""Checks A1-A13 of docs/contract.md: `align_labels` and its batched version."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from touchstone.properties import oracles
from touchstone.properties.check import check
from touchstone.properties.failure import expect, expect_that
from touchstone.properties.oracles import IGNORED
from touchstone.properties.purity import expect_pure, expect_same_for_tuples_and_arrays
from touchstone.properties.strategies.alignment import (
    Alignment,
    alignment_batches,
    alignments,
    misspelt_alignments,
    pair_alignments,
    sentences_and_pairs,
    shared_arguments,
)
from touchstone.properties.strategies.tags import TREACHEROUS_TYPES, TYPES, label_names, schemes
from touchstone.properties.subject import Subject
from touchstone.stages.ragged import Ragged


def align(implementation: Subject, case: Alignment) -> Any:
    implementation.remark(**case.remarks)
    return implementation.align_labels(case.labels, **case.arguments)


def expected_where_labelled(case: Alignment) -> list[int]:
    """Return -100 where there must be no label, otherwise the label of the word (not yet re-spelt)."""
    firsts = {first for first, _ in case.spans.values()}
    return [
        case.labels[word] if ours and word is not None and (case.strategy == "all" or position in firsts) else IGNORED
        for position, (word, ours) in enumerate(zip(case.word_ids, case.ours, strict=True))
    ]


@check("A1", needs="align_labels", case=alignments())
def test_align_labels_must_return_one_label_per_token(implementation: Subject, case: Alignment) -> None:
    came = align(implementation, case)
    expect_that(len(came) == len(case.word_ids), expected=f"{len(case.word_ids)} labels", came=came)


@check("A2", needs="align_labels", case=sentences_and_pairs())
def test_labels_must_be_ignored_exactly_at_special_tokens_other_sequences_and_unlabelled_continuations(
    implementation: Subject, case: Alignment
) -> None:
    came = align(implementation, case)
    expected = [label == IGNORED for label in expected_where_labelled(case)]
    expect_that(
        [label == IGNORED for label in came] == expected,
        expected=f"-100 exactly at {[position for position, ignored in enumerate(expected) if ignored]}",
        came=came,
    )


@check("A3", needs="align_labels", case=alignments())
def test_the_first_token_of_a_word_must_have_its_label(implementation: Subject, case: Alignment) -> None:
    came = align(implementation, case)
    for word, (first, last) in case.spans.items():
        n_tokens = 1 if case.strategy == "first" else last - first + 1
        tag = oracles.respell(case.tags[word], n_tokens, scheme=case.scheme)[0]
        expect_that(
            came[first] == case.names.index(tag),
            expected=f"{case.names.index(tag)} ({tag}) at position {first}, the first of {last - first + 1} tokens of "
            f"word {word} ({case.tags[word]})",
            came=came,
        )


@check("A4", needs="align_labels", case=alignments())
def test_a_continuation_token_must_not_open_an_entity(implementation: Subject, case: Alignment) -> None:
    came = align(implementation, case)
    for word, (first, last) in case.spans.items():
        for position in range(first + 1, last + 1):
            tag = case.named(came)[position]
            expect_that(
                tag[0] not in "BSU",
                expected=f"a tag that does not open an entity at position {position}, which continues word {word} "
                f"({case.tags[word]})",
                came=came,
                where=f"as tags: {' '.join(case.named(came))}",
            )


@check("A5", needs="align_labels merge_labels", case=alignments())
def test_entities_must_survive_from_words_to_tokens_and_back(implementation: Subject, case: Alignment) -> None:
    tokens = align(implementation, case)
    came = implementation.merge_labels(tokens, n_words=len(case.labels), **case.merging)
    outside = case.names.index("O")
    expected = [label if word in case.spans else outside for word, label in enumerate(case.labels)]
    expect(expected, came)


@st.composite
def permuted_ids(draw: DrawFn) -> tuple[Alignment, list[int]]:
    """A case, and a new id for each label."""
    case = draw(alignments())
    return case, draw(st.permutations(range(len(case.names))))


@check("A6", needs="align_labels", pair=permuted_ids())
def test_permuting_label_ids_must_permute_the_aligned_labels(
    implementation: Subject, pair: tuple[Alignment, list[int]]
) -> None:
    case, permutation = pair
    names = [""] * len(permutation)
    for old, new in enumerate(permutation):
        names[new] = case.names[old]
    permuted = case.with_(names=names, labels=[permutation[label] for label in case.labels])
    expected = [label if label == IGNORED else permutation[label] for label in align(implementation, case)]
    expect(expected, align(implementation, permuted))


@check("A7", needs="align_labels", case=alignments(valid=True, complete=True, strategy="all"))
def test_token_labels_must_be_valid_in_their_scheme_if_the_word_labels_are(
    implementation: Subject, case: Alignment
) -> None:
    came = align(implementation, case)
    tags = [tag for tag in case.named(came) if tag != "-"]
    expect_that(
        oracles.is_valid(tags, scheme=case.scheme),
        expected=f"a sequence that {case.scheme} allows, as {' '.join(case.tags)} is",
        came=" ".join(tags),
    )


@check("A8", needs="align_labels", case=alignments(), share=st.integers(0, 100))
def test_truncating_tokens_must_leave_a_prefix_of_the_labels(
    implementation: Subject, case: Alignment, share: int
) -> None:
    cut = len(case.word_ids) * share // 100
    whole = align(implementation, case)
    sequence_ids = case.sequence_ids and case.sequence_ids[:cut]
    came = align(implementation, case.with_(word_ids=case.word_ids[:cut], sequence_ids=sequence_ids))
    same = cut
    if case.strategy == "all" and case.scheme != "IOB2":  # a truncated word may get another end: compare up to it
        same = min([cut, *(first for first, last in case.spans.values() if first < cut <= last)])
    expect_that(
        came[:same] == whole[:same] and len(came) == cut,
        expected=f"{cut} labels that begin with {whole[:same]}",
        came=came,
    )


@check("A9", needs="align_labels", case=pair_alignments())
def test_tokens_of_the_other_sequence_must_get_no_label_and_change_no_other_label(
    implementation: Subject, case: Alignment
) -> None:
    alone = [word if ours else None for word, ours in zip(case.word_ids, case.ours, strict=True)]
    expected = align(implementation, case.with_(word_ids=alone, sequence_ids=None, sequence=0))
    came = align(implementation, case)
    expect(expected, came)
    others = [position for position, ours in enumerate(case.ours) if not ours]
    expect_that(all(came[position] == IGNORED for position in others), expected=f"-100 at each of {others}", came=came)


@st.composite
def treacherous_types(draw: DrawFn) -> tuple[Alignment, list[str]]:
    """A case with treacherous types, and the same label names with plain types."""
    case = draw(alignments(strategy="all", among=TREACHEROUS_TYPES))
    plain = {kind: f"T{number}" for number, kind in enumerate(TREACHEROUS_TYPES)}
    pairs = [oracles.split_tag(name) for name in case.names]
    return case, [prefix if not kind else f"{prefix}-{plain[kind]}" for prefix, kind in pairs]


@check("A10", needs="align_labels", pair=treacherous_types())
def test_only_the_prefix_of_a_tag_must_be_rewritten_for_any_name_of_the_type(
    implementation: Subject, pair: tuple[Alignment, list[str]]
) -> None:
    case, plain_names = pair
    expected = align(implementation, case.with_(names=plain_names))
    expect(expected, align(implementation, case))


@check("A10", needs="align_labels merge_labels", pair=treacherous_types())
def test_merging_must_depend_only_on_the_prefix_for_any_name_of_the_type(
    implementation: Subject, pair: tuple[Alignment, list[str]]
) -> None:
    case, plain_names = pair
    tokens = implementation.align_labels(case.labels, **case.arguments)
    plain = case.with_(names=plain_names).merging
    expected = implementation.merge_labels(tokens, n_words=len(case.labels), **plain)
    expect(expected, implementation.merge_labels(tokens, n_words=len(case.labels), **case.merging))


@check("A11", needs="align_labels", kind="refusal", case=alignments(min_words=1), data=st.data())
def test_align_labels_must_refuse_a_label_id_outside_the_names(
    implementation: Subject, case: Alignment, data: Any
) -> None:
    word = data.draw(st.integers(0, len(case.labels) - 1))
    bad = data.draw(st.sampled_from([-1, len(case.names), len(case.names) + 7]))
    labels = [*case.labels[:word], bad, *case.labels[word + 1 :]]
    implementation.expect_refusal("align_labels", labels, mentions=(word, bad), **case.arguments)


@check("A11", needs="align_labels", kind="refusal", case=alignments(), data=st.data())
def test_align_labels_must_refuse_a_word_id_outside_the_labels(
    implementation: Subject, case: Alignment, data: Any
) -> None:
    token = data.draw(st.integers(0, len(case.word_ids)))
    bad = data.draw(st.sampled_from([-1, len(case.labels), len(case.labels) + 7]))
    case = case.with_(word_ids=[*case.word_ids[:token], bad, *case.word_ids[token:]])
    implementation.expect_refusal("align_labels", case.labels, mentions=(token, bad), **case.arguments)


@check("A11", needs="align_labels", kind="refusal", pair=misspelt_alignments())
def test_align_labels_must_refuse_a_name_that_is_not_a_tag_of_the_scheme(
    implementation: Subject, pair: tuple[Alignment, int]
) -> None:
    case, index = pair
    implementation.expect_refusal("align_labels", case.labels, mentions=(index, case.names[index]), **case.arguments)


@st.composite
def unnamed_tags(draw: DrawFn) -> tuple[str, list[str], str, list[str]]:
    """A scheme, names that lack one tag, the tag of a word whose tokens need it, and the tags of these tokens."""
    scheme, kind, n_tokens = draw(schemes), draw(st.sampled_from(TYPES)), draw(st.integers(2, 4))
    names = draw(label_names([kind], scheme=scheme))
    tags = oracles.tags_of([kind], scheme=scheme)[1:]
    tag = draw(st.sampled_from([name for name in tags if not name.startswith("I-")]))
    tokens = oracles.respell(tag, n_tokens, scheme=scheme)
    absent = draw(st.sampled_from(sorted(set(tokens) - {tag})))
    return scheme, [name for name in names if name != absent], tag, tokens


@check("A11", needs="align_labels", kind="refusal", word=unnamed_tags())
def test_align_labels_must_refuse_a_respelt_tag_without_a_name(
    implementation: Subject, word: tuple[str, list[str], str, list[str]]
) -> None:
    scheme, names, tag, tokens = word
    absent = next(each for each in tokens if each not in names)
    arguments = {"word_ids": [None, *[0] * len(tokens)], "names": names, "strategy": "all", "scheme": scheme}
    implementation.expect_refusal("align_labels", [names.index(tag)], mentions=(absent,), **arguments)


@check("A11", needs="align_labels", kind="refusal", case=pair_alignments(), extra=st.booleans())
def test_align_labels_must_refuse_word_ids_and_sequence_ids_of_different_lengths(
    implementation: Subject, case: Alignment, extra: bool
) -> None:
    assert case.sequence_ids is not None
    case = case.with_(sequence_ids=[*case.sequence_ids, None] if extra else case.sequence_ids[:-1])
    sizes = len(case.word_ids), len(case.sequence_ids or ())
    implementation.expect_refusal("align_labels", case.labels, mentions=sizes, **case.arguments)


@check("A11", needs="align_labels", kind="refusal", case=alignments(), bad=st.sampled_from(["ALL", "last", "", "none"]))
def test_align_labels_must_refuse_an_unknown_strategy(implementation: Subject, case: Alignment, bad: str) -> None:
    implementation.expect_refusal("align_labels", case.labels, mentions=(bad,), **case.arguments | {"strategy": bad})


@check("A11", needs="align_labels", kind="refusal", case=alignments(), bad=st.sampled_from(["IOB1", "iob2", "BIO", ""]))
def test_align_labels_must_refuse_an_unknown_scheme(implementation: Subject, case: Alignment, bad: str) -> None:
    implementation.expect_refusal("align_labels", case.labels, mentions=(bad,), **case.arguments | {"scheme": bad})


@check("A12", needs="align_labels", kind="form", case=sentences_and_pairs())
def test_align_labels_must_be_pure(implementation: Subject, case: Alignment) -> None:
    expect_pure(implementation, "align_labels", case.labels, **case.arguments)


@check("A12", needs="align_labels", kind="form", case=sentences_and_pairs())
def test_align_labels_must_accept_tuples_and_arrays(implementation: Subject, case: Alignment) -> None:
    expect_same_for_tuples_and_arrays(implementation, "align_labels", case.labels, **case.arguments)


@check("A13", needs="align_labels align_labels_batch", cases=alignment_batches())
def test_align_labels_batch_must_equal_align_labels(implementation: Subject, cases: list[Alignment]) -> None:
    expected = [align(implementation, case) for case in cases]
    if not cases:
        empty = Ragged.from_lists([])
        expect([], implementation.align_labels_batch(empty, word_ids=empty, names=["O"]))
        return
    labels = Ragged.from_lists([case.labels for case in cases])
    arguments = shared_arguments(cases) | {"strategy": cases[0].strategy}
    expect(expected, implementation.align_labels_batch(labels, **arguments))
    expect_pure(implementation, "align_labels_batch", labels, **arguments)


@check("A13", needs="align_labels_batch", kind="refusal", cases=alignment_batches(min_size=1), data=st.data())
def test_align_labels_batch_must_refuse_what_align_labels_refuses(
    implementation: Subject, cases: list[Alignment], data: Any
) -> None:
    row = data.draw(st.integers(0, len(cases) - 1))
    case, bad = cases[row], data.draw(st.sampled_from([-2, 5000]))
    if data.draw(st.booleans()) and case.labels:
        cases[row] = case.with_(labels=[*case.labels[:-1], bad])
    else:
        cases[row] = case.with_token(bad)
    labels = Ragged.from_lists([each.labels for each in cases])
    arguments = shared_arguments(cases) | {"strategy": case.strategy}
    implementation.expect_refusal("align_labels_batch", labels, mentions=(bad,), **arguments)
