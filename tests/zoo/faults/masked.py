"""Faults of masked language modelling."""

from tests.zoo.fault import Fault

COLLATOR = "data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.15)"
OWN = """
import torch

mlm_probability = 0.15


def data_collator(features):
    input_ids = torch.tensor([feature["input_ids"] for feature in features])
    labels = {labels}
    special = torch.tensor([
        tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in input_ids.tolist()
    ]).bool()
    chosen = torch.rand(input_ids.shape).lt(mlm_probability){special}
    {body}
    return {{"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "labels": labels}}
"""


def own(body: str, *, labels: str = "input_ids.clone()", special: str = " & ~special") -> tuple[str, str]:
    """Return an edit that replaces the stock collator by one of the user's own."""
    return COLLATOR, OWN.format(labels=labels, body=body, special=special).strip()


FAULTS = (
    Fault(
        id="mlm-labels-everywhere",
        script="mlm_trainer",
        says="The collator masks tokens, but never sets the labels of the other tokens to -100.",
        edits=(own("input_ids[chosen] = tokenizer.mask_token_id"),),
        probes=("masks-labelled",),
        cause="not only the masked ones.*-100",
        seen="https://towardsdatascience.com/masked-language-modelling-with-bert-7d49793e5d2c",
    ),
    Fault(
        id="mlm-whole-word-labels-lost",
        script="mlm_whole_word",
        says="The new labels of the whole-word collator are computed and never assigned.",
        edits=(('        feature["labels"] = new_labels\n', ""),),
        probes=("masks-labelled",),
        cause="have a label, not only the masked ones",
        seen="https://github.com/huggingface/course/pull/291",
    ),
    Fault(
        id="mlm-word-ids-of-the-first-row",
        script="mlm_whole_word",
        says="Words are chosen by the word ids of the first row of the batch.",
        edits=(
            (
                'word_ids = feature.pop("word_ids")',
                'word_ids = [a if b else b for a, b in zip(features[0]["word_ids"], feature.pop("word_ids"))]',
            ),
        ),
        probes=("mask-whole-words",),
        cause="word ids must belong to the same row",
    ),
    Fault(
        id="mlm-labels-after-masking",
        script="mlm_trainer",
        says="Labels are copied after the tokens were masked, so they hold the mask token.",
        edits=(own("input_ids[chosen] = tokenizer.mask_token_id\n    labels = input_ids.masked_fill(~chosen, -100)"),),
        probes=("masks-labelled",),
        cause=r"labels are the mask token itself.*copy the labels before",
    ),
    Fault(
        id="mlm-collator-of-causal-models",
        script="mlm_trainer",
        says="The collator is that of causal models (mlm=False): nothing is masked.",
        edits=((COLLATOR, "data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False)"),),
        probes=("masks-hide-tokens",),
        cause="mlm=False",
    ),
    Fault(
        id="mlm-mask-token-of-another-model",
        script="mlm_trainer",
        says="The id of BERT's mask token, 103, is written into the collator; here it is another token.",
        edits=(own("labels[~chosen] = -100\n    input_ids[chosen] = 103"),),
        probes=("masks-hide-tokens",),
        cause="id 103.*not the mask token",
    ),
    Fault(
        id="mlm-tokens-stay-visible",
        script="mlm_trainer",
        says="Tokens are chosen and labelled, but the masked ids are written into a copy.",
        edits=(own("labels[~chosen] = -100\n    input_ids.clone()[chosen] = tokenizer.mask_token_id"),),
        probes=("masks-hide-tokens",),
        cause="stand unmasked in the model's input",
    ),
    Fault(
        id="mlm-specials-masked",
        script="mlm_trainer",
        says="[CLS] and [SEP] are masked like words.",
        edits=(own("labels[~chosen] = -100\n    input_ids[chosen] = tokenizer.mask_token_id", special=""),),
        probes=("mask-special-tokens",),
        cause=r"\[CLS\]|\[SEP\]",
        seen="https://github.com/huggingface/transformers/issues/1395",
    ),
    Fault(
        id="mlm-padding-masked",
        script="mlm_line_by_line",
        says="Rows are padded in map and the padding is masked: its special tokens mask says that it is text.",
        edits=(
            (
                'return tokenizer(examples["text"], truncation=True, max_length=128, return_special_tokens_mask=True)',
                'encoded = tokenizer(examples["text"], truncation=True, max_length=128, padding="max_length")\n'
                '    encoded["special_tokens_mask"] = [\n'
                "        [int(each in (tokenizer.cls_token_id, tokenizer.sep_token_id)) for each in ids]\n"
                '        for ids in encoded["input_ids"]\n'
                "    ]\n"
                "    return encoded",
            ),
            ("        report_to=", "        remove_unused_columns=False,\n        report_to="),
        ),
        probes=("mask-special-tokens",),
        cause="padding",
    ),
    Fault(
        id="mlm-rate-twice",
        script="mlm_trainer",
        says="Tokens are chosen once for the mask token and once for random tokens, each time with the full rate.",
        edits=(
            own(
                "random = torch.rand(input_ids.shape).lt(mlm_probability) & ~special & ~chosen\n"
                "    labels[~(chosen | random)] = -100\n"
                "    input_ids[random] = torch.randint(len(tokenizer), input_ids.shape)[random]\n"
                "    input_ids[chosen] = tokenizer.mask_token_id"
            ),
        ),
        probes=("mask-rate",),
        cause="times as many tokens as declared",
    ),
    Fault(
        id="mlm-whole-words-in-part",
        script="mlm_whole_word",
        says="Of each chosen word, the last piece is left visible.",
        edits=(("for idx in mapping[word_id]:", "for idx in mapping[word_id][: max(1, len(mapping[word_id]) - 1)]:"),),
        probes=("mask-whole-words",),
        cause="chosen in part only",
    ),
    Fault(
        id="mlm-labels-of-another-place",
        script="mlm_whole_word",
        says="Labels are taken from the place before the masked one.",
        edits=(("new_labels[idx] = labels[idx]", "new_labels[idx] = labels[idx - 1]"),),
        probes=("masks-labelled",),
        cause="not the token that was there",
    ),
)
