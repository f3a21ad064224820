"""Probes of token classification: names of labels, schemes of tags, and entities that are cut off."""

from __future__ import annotations

from collections.abc import Mapping

from touchstone.auditing.finding import Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.probes.tags import need_aligned
from touchstone.auditing.reading.tags import FEW, INSIDE, OPENS, entities, has_names, shown, split_name, tagging
from touchstone.auditing.reading.words import Sentence
from touchstone.auditing.subject import IGNORED, Subject

TASK = ("token-classification",)
NOTABLE = 0.01
"""A share of entities from which their loss is a warning."""


@probe(
    "label-names-are-the-data-names",
    group="token classification",
    says="The model's names of labels are the data's names of the same tags.",
    tasks=TASK,
    budget="fast",
)
def label_names_are_the_data_names(subject: Subject) -> Finding:
    """Compare `config.id2label` with the names of the tags that have each label.

    Fault: The model calls tags by each other's names. Training is not touched, but every report by name, and every
    later user of the checkpoint, gets the wrong names.

    Causes: id2label is made from a sorted or rewritten list of names, while ids come from the data. Or a checkpoint
    that was trained on the same tags in another order is loaded.

    Remedy: Make both from the data's own list: `names = dataset.features['ner_tags'].feature.names`, and
    `id2label=dict(enumerate(names))`.

    Warning: The model has no names (LABEL_0), or id2label and label2id disagree, or tags were merged under other
    names.
    """
    if subject.names is None:
        raise NotChecked("the model has no label names: set config.id2label")
    twisted = _twisted_config(subject)
    if not has_names(subject):
        return warn(
            f"the model calls its labels {subject.names[0]} to {subject.names[-1]}",
            cause="predictions cannot be read, and a tag's type is lost: pass id2label= and label2id= to the model",
        )
    found = tagging(subject)
    need_aligned(subject)
    names = list(subject.names)
    texts = {
        found.text(tag): label
        for tag, label in found.usual.items()
        if found.text(tag) is not None and found.spread[tag] <= FEW
    }
    if not texts:
        raise NotChecked("the tags are numbers without names: use a ClassLabel feature, or pass raw= with its names")
    wrong = {text: names[label] for text, label in texts.items() if 0 <= label < len(names) and names[label] != text}
    # A tag that is merged into another one has no name of its own in the model, or shares its label with the other.
    # Tags that were converted to another scheme keep their type: I-PER of IOB2 is often L-PER of BILOU.
    swapped = {
        text: name
        for text, name in wrong.items()
        if text in names
        and not (found.converted and str(text)[1:] == name[1:])
        and sum(label == texts[text] for label in texts.values()) == 1
        and name in {*wrong, *names}
    }
    if len(swapped) >= 2 or "O" in swapped:
        shown_pairs = ", ".join(f"{text} is called {name}" for text, name in list(swapped.items())[:4])
        return fail(
            f"{len(swapped)} of {len(texts)} tags have another name in the model: {shown_pairs}",
            cause="id2label is in another order than the ids of the tags: make it from the same list of names",
            measured={str(text): name for text, name in swapped.items()},
            expected={str(text): text for text in swapped},
        )
    if twisted:
        return warn(f"label2id and id2label of the model disagree: {twisted}", cause="make both from one list of names")
    wrong = {text: name for text, name in wrong.items() if str(text)[1:] != name[1:]}  # another scheme's spelling
    if wrong and not {*texts, "O"} & {*names} - {"O"}:
        return _renamed(texts, wrong)
    if wrong:
        some = ", ".join(f"{text} as {name}" for text, name in list(wrong.items())[:4])
        return warn(
            f"{len(wrong)} tags have a label of another name: {some}", cause="right if they were merged on purpose"
        )
    return passed(f"the names of {len(texts)} tags are those of the model")


def _renamed(texts: Mapping[str | None, int], wrong: Mapping[str | None, str]) -> Finding:
    """Judge names of which none is a tag of the data: other classes, other words for the same, or another data set."""
    tags = {text: (split_name(str(text)), split_name(name)) for text, name in wrong.items()}
    paired = [
        (text, a, b) for text, (a, b) in tags.items() if a is not None and b is not None and "O" not in (a[0], b[0])
    ]
    one_to_one = len(set(texts.values())) == len(texts)
    if not one_to_one or len(paired) < len(wrong):
        return passed(f"the {len(set(texts.values()))} labels are other classes than the {len(texts)} tags")
    turned = [text for text, a, b in paired if (a[0] in OPENS) != (b[0] in OPENS)]
    some = ", ".join(f"{text} as {wrong[text]}" for text in (turned or list(wrong))[:4])
    message = f"the model has other names than the data: {some}"
    if 2 <= len(turned) < len(paired):
        return fail(
            message,
            cause="some tags that open an entity are called I-, or the other way round: id2label is that of another "
            "data set; make it from the names of these tags",
            measured=len(turned),
            expected=0,
        )
    if all(a[1].lower()[:3] == b[1].lower()[:3] for _, a, b in paired):
        return passed(f"the names of {len(paired)} tags are spelt in another way in the model")
    return warn(message, cause="id2label may be that of another data set; right if the types were renamed on purpose")


def _twisted_config(subject: Subject) -> str:
    """Return the first label whose id in label2id is another one than in id2label."""
    config = getattr(subject.model, "config", None)
    forward, back = getattr(config, "id2label", None) or {}, getattr(config, "label2id", None) or {}
    for number, name in forward.items():
        if name in back and back[name] != int(number):
            return f"{name} is {number} in id2label and {back[name]} in label2id"
    return ""


@probe(
    "tags-form-a-scheme",
    group="token classification",
    says="Label names are O, B-TYPE, I-TYPE and so on, and no entity goes on that was not opened.",
    tasks=TASK,
    budget="fast",
)
def tags_form_a_scheme(subject: Subject) -> Finding:
    """Look for names that are no tags, and for tags that continue an entity which none opened.

    Warning: Some names are no tags, such as the digit 0 for the letter O, or entities go on that none opened. Metrics
    of entities take unknown names for entities, and a strict metric drops entities that are not opened.

    Remedy: Spell tags as O, B-TYPE and I-TYPE. Convert IOB1 to IOB2 before you train, or tell the metric the scheme:
    `seqeval` takes `mode='strict', scheme=IOB2`.
    """
    found = tagging(subject)
    texts = {found.text(tag) for sentence in found.sentences for tag in sentence.tags} - {None}
    if not texts and has_names(subject):
        texts = set(subject.names or ())
    if not texts:
        raise NotChecked("neither the tags nor the labels have names: pass id2label= to the model")
    named = sorted(str(text) for text in texts)
    odd = [text for text in named if split_name(text) is None]
    prefixed = [text for text in named if split_name(text) not in (None, ("O", ""))]
    if odd and not prefixed:
        return passed(f"the tags are plain classes, without B- and I-: {', '.join(odd[:5])}")
    if odd:
        hint = " (the digit 0 is not the letter O)" if "0" in odd else ""
        return warn(
            f"{', '.join(odd[:5])}: no tag of a scheme{hint}",
            cause="metrics of entities read tags as O, B-TYPE, I-TYPE: other names are taken for entities, or refused",
        )
    types = {text[2:] for text in prefixed}
    one_sided = sorted(kind for kind in types if not any(f"{each}-{kind}" in named for each in OPENS))
    inside = opened = 0
    for sentence in found.sentences:
        before = ("O", "")
        for tag in sentence.tags:
            now = split_name(found.text(tag) or "O") or ("O", "")
            if now[0] in INSIDE:
                inside += 1
                opened += now[1] != before[1] or before[0] == "O"
            before = now
    if opened and len(one_sided) < len(types):
        return warn(
            f"{opened} of {inside} tags that continue an entity follow none of their type",
            cause="the tags are IOB1, or rows were cut inside entities: metrics in strict mode ignore such entities",
        )
    if one_sided:
        return passed(f"the tags are in the scheme IO: {', '.join(one_sided[:5])} have no tag that opens an entity")
    return passed(f"{len(named)} names are tags, and every entity is opened")


@probe(
    "entities-survive-truncation",
    group="token classification",
    says="No entity is lost because its words are cut off.",
    tasks=TASK,
    budget="fast",
)
def entities_survive_truncation(subject: Subject) -> Finding:
    """Count the entities whose words have no token in any row.

    Warning: More than 1% of the entities are in words that truncation cuts off. They are neither learned nor, in the
    evaluation data, missed by the metric.

    Remedy: Raise `max_length`, or keep the rest of long rows: `return_overflowing_tokens=True, stride=...`, with the
    labels aligned for each window.
    """
    found = tagging(subject)
    need_aligned(subject)
    sources: dict[int, tuple[Sentence, set[int]]] = {}
    for sentence in found.sentences:
        held = sources.setdefault(sentence.origin.number, (sentence, set()))[1]
        held |= set(sentence.tokens_of_word())
    total = lost = cut = words = 0
    worst: Sentence | None = None
    complete = found.reading.lineage.complete
    for number, (sentence, held) in sources.items():
        if number not in complete:
            continue
        names = [found.text(tag) or found.label_name(found.meant.get(tag, IGNORED)) or "O" for tag in sentence.tags]
        spans = entities(names)
        missing = sum(any(word not in held for word in range(first, last + 1)) for _, first, last in spans)
        behind = max(held, default=-1)
        total += len(spans)
        lost += missing
        words += len(sentence.words)
        cut += len(sentence.words) - behind - 1
        if missing and worst is None:
            worst = sentence
    if not total:
        raise NotChecked("the rows looked at have no entities")
    figures = f"{lost} of {total} entities and {cut} of {words} words"
    if lost > NOTABLE * total and worst is not None:
        return warn(
            f"truncation loses {figures}",
            cause="raise max_length, or split long rows into windows (return_overflowing_tokens=True)",
            measured=lost / total,
            expected=0,
            example=shown(subject, worst, []),
        )
    return passed(f"truncation loses {figures}")
