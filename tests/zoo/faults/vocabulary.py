"""Faults of tokenizer and model."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="tokens-added-without-embeddings",
        script="translation_trainer",
        says="A token is added to the tokenizer, and the table of embeddings is not resized.",
        edits=(
            ("max_length = 128\n", 'max_length = 128\ntokenizer.add_tokens(["<en>"])\n'),
            ('inputs = examples["source"]', 'inputs = ["<en> " + text for text in examples["source"]]'),
        ),
        probes=("ids-in-table",),
        cause="resize_token_embeddings",
        seen="https://github.com/huggingface/transformers/issues/1062",
    ),
    Fault(
        id="padding-token-added-without-embeddings",
        script="clm_documents",
        says="A padding token is added, and the table of embeddings is not resized.",
        edits=(("model.resize_token_embeddings(len(tokenizer))\n", ""),),
        probes=("ids-in-table",),
        cause=r"<\|pad\|>.*resize_token_embeddings",
        seen="https://github.com/huggingface/transformers/issues/1730",
    ),
    Fault(
        id="padding-token-is-a-comma",
        script="clm_documents",
        says="The comma pads, so the stock collator takes every comma for padding.",
        edits=(
            (
                'tokenizer.add_special_tokens({"pad_token": "<|pad|>"})\n'
                "model.resize_token_embeddings(len(tokenizer))\n",
                'tokenizer.pad_token = ","\n',
            ),
        ),
        probes=("padding-is-no-text",),
        cause="never learns to write ','",
    ),
    Fault(
        id="rows-longer-than-positions",
        script="clm_documents",
        says="Rows may have 300 tokens, and the model has 256 positions.",
        edits=(("max_length=255", "max_length=299"),),
        probes=("positions-in-table",),
        cause="table of positions has 256 rows",
        seen="https://github.com/huggingface/transformers/issues/1791",
    ),
    Fault(
        id="tokenizer-of-another-model",
        script="mlm_trainer",
        says="The tokenizer is that of T5, and the model is DistilBERT.",
        edits=(
            (
                "tokenizer = AutoTokenizer.from_pretrained(model_checkpoint)",
                'tokenizer = AutoTokenizer.from_pretrained("tiny-t5")\ntokenizer.mask_token = "<extra_id_0>"\n'
                'tokenizer.mask_token = tokenizer.convert_ids_to_tokens(5)\ntokenizer.sep_token = "</s>"',
            ),
        ),
        probes=("tokenizer-of-the-model",),
        cause="embedding of another token",
    ),
    Fault(
        id="texts-unknown-to-the-tokenizer",
        script="mlm_line_by_line",
        says="An earlier step wrote each letter as a symbol that the vocabulary does not have.",
        edits=(
            (
                'return tokenizer(examples["text"], truncation',
                'return tokenizer(["".join(chr(0x1F600 + ord(each) % 60) + " " for each in text[:60])\n'
                '        for text in examples["text"]], truncation',
            ),
        ),
        probes=("unknown-tokens",),
        cause="tokens .* are unknown",
    ),
    Fault(
        id="padding-id-is-text",
        script="translation_trainer",
        says="The model's padding id is that of a word, whose embedding never trains.",
        edits=(
            (
                "model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint)",
                'model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, pad_token_id=tokenizer.encode(".")[1])',
            ),
        ),
        probes=("special-ids-agree",),
        cause="padding_idx",
    ),
    Fault(
        id="rows-of-a-batch-mixed",
        script="clm_trainer",
        says="A wrapper subtracts the mean over the batch from the logits, so rows see each other.",
        edits=(
            (
                "block_size = 64\n",
                "block_size = 64\n"
                "model.transformer.ln_f.register_forward_hook(lambda module, args, output: output - output.mean(0))\n",
            ),
        ),
        probes=("rows-independent",),
        cause="mixes rows",
    ),
)
