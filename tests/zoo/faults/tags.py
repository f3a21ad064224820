"""Faults of token labels against words and tags."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="ner-no-place-for-special-tokens",
        script="ner_trainer",
        says="Special tokens get no entry in the labels, so all labels stand one token too far to the left.",
        edits=(("            new_labels.append(-100)\n", "            continue\n"),),
        probes=("labels-follow-tags",),
        cause="1 token too far to the left",
    ),
    Fault(
        id="ner-opening-tag-on-every-subword",
        script="ner_trainer",
        says="Every token of a split word is labelled B-, so each opens an entity of its own.",
        edits=(('label = "I-" + label[2:]', "pass"),),
        probes=("subwords-open-no-entity",),
        cause="labelled B-.* entities where the words have",
    ),
    Fault(
        id="ner-entity-ends-inside-its-word",
        script="ner_trainer",
        says="The later tokens of an entity's first word are labelled O: the entity ends inside its word.",
        edits=(('label = "I-" + label[2:]', 'label = "O"'),),
        probes=("subwords-open-no-entity",),
        cause="labelled O",
    ),
    Fault(
        id="ner-tag-of-the-word-before",
        script="ner_trainer",
        says="The first token of a word has the tag of the word before it.",
        edits=(("new_labels.append(label2id[labels[word_id]])", "new_labels.append(label2id[labels[word_id - 1]])"),),
        probes=("labels-follow-tags",),
        cause="1 before it",
    ),
    Fault(
        id="ner-tags-without-alignment",
        script="ner_trainer",
        says="The tags of words are put on the tokens one by one, though words have several tokens.",
        edits=(
            (
                "align_labels_with_tokens(labels, tokenized.word_ids(i))",
                '[-100] + [label2id[tag] for tag in labels][: len(tokenized["input_ids"][i]) - 2] + [-100]',
            ),
        ),
        probes=("labels-follow-tags",),
        cause="word_ids",
        seen="https://github.com/google-research/bert/issues/560",
    ),
    Fault(
        id="ner-tags-of-the-row-before",
        script="ner_torch_dataset",
        says="Words and tags come from lists of which one has an entry more, such as a heading.",
        edits=(("unique_tags = [", 'train_tags = ["O " * 200, *train_tags[:-1]]\nunique_tags = ['),),
        probes=("labels-follow-tags",),
        cause="the tags are those of other rows",
    ),
    Fault(
        id="ner-evaluation-tags-of-the-word-after",
        script="ner_ids_classlabel",
        says="The evaluation data are labelled by a function of their own, which counts words from 1.",
        edits=(
            ("eval_dataset=prepare(test)", "eval_dataset=prepare_test(test)"),
            (
                "model = AutoModelForTokenClassification",
                "def add_test_labels(example):\n"
                "    words = tokenizer(example['tokens'], is_split_into_words=True, truncation=True).word_ids()\n"
                "    tags = [*example['ner_tags'][1:], 0]\n"
                "    firsts = [w is not None and w not in words[:k] for k, w in enumerate(words)]\n"
                "    return {'labels': [tags[w] if first else -100 for w, first in zip(words, firsts)]}\n\n\n"
                "def prepare_test(dataset):\n"
                "    return dataset.map(tokenize, batched=True).map(add_test_labels)\n\n\n"
                "model = AutoModelForTokenClassification",
            ),
        ),
        probes=("labels-follow-tags",),
        cause="in the evaluation data.* the word 1 after it",
    ),
    Fault(
        id="ner-names-of-another-data-set",
        script="ner_trainer",
        says="id2label has the names of another data set.",
        edits=(
            (
                "id2label=dict(enumerate(names)), label2id=label2id,",
                'id2label=dict(enumerate("O B-group B-person B-work B-law I-group I-person I-work I-law".split())),',
            ),
        ),
        probes=("label-names-are-the-data-names",),
        cause="called I-, or the other way round",
    ),
    Fault(
        id="ner-types-of-another-data-set",
        script="ner_trainer",
        says="id2label has the types of another data set, in the same order of B- and I-.",
        edits=(
            (
                "id2label=dict(enumerate(names)), label2id=label2id,",
                'id2label=dict(enumerate("O B-group I-group B-person I-person B-work I-work B-law I-law".split())),',
            ),
        ),
        probes=(),
        warns=("label-names-are-the-data-names",),
        cause="id2label may be that of another data set",
    ),
    Fault(
        id="ner-words-of-several-tokens-unlabelled",
        script="ner_ids_classlabel",
        says="Words that are split have no label at all.",
        edits=(
            ("    for word in encoded.word_ids():\n", "    words = encoded.word_ids()\n    for word in words:\n"),
            ("if word is None or word == previous:", "if word is None or words.count(word) > 1:"),
        ),
        probes=("words-labelled",),
        cause="words of several tokens have none",
    ),
    Fault(
        id="ner-word-ids-of-the-first-row",
        script="ner_trainer",
        says="Labels are laid out by the word ids of the first row of the batch.",
        edits=(
            (
                'tokenizer(examples["words"], truncation=True, is_split_into_words=True)',
                'tokenizer(examples["words"], is_split_into_words=True, padding="max_length", max_length=99)',
            ),
            ("tokenized.word_ids(i))", "[w if w is None or w < len(labels) else None for w in tokenized.word_ids()])"),
        ),
        probes=("labels-follow-tags",),
        cause="words of another row",
    ),
    Fault(
        id="ner-names-in-another-order",
        script="ner_trainer",
        says="id2label is made from names in another order than the ids of the labels.",
        edits=(("id2label=dict(enumerate(names))", "id2label=dict(enumerate(sorted(names)))"),),
        probes=("label-names-are-the-data-names", "metric-arguments-in-order"),
        cause="another order|use one list for the data",
        seen="https://github.com/huggingface/transformers/issues/14230",
    ),
    Fault(
        id="ner-class-label-names-sorted",
        script="ner_ids_classlabel",
        says="The model's names are sorted, and the ids are those of ClassLabel.",
        edits=(
            (
                "id2label={i: labels.int2str(i) for i in range(labels.num_classes)}",
                "id2label=dict(enumerate(sorted(labels.names)))",
            ),
        ),
        probes=("label-names-are-the-data-names",),
        cause="another name in the model",
        seen="https://github.com/EuroEval/EuroEval/pull/375",
    ),
)
