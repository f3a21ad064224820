"""Token classification with simpletransformers, whose training loop is its own."""

import json

import pandas
from simpletransformers.ner import NERArgs, NERModel


def table(path):
    rows = [json.loads(line) for line in open(path, encoding="utf-8")]
    return pandas.DataFrame(
        [(number, word, tag) for number, row in enumerate(rows) for word, tag in zip(row["words"], row["tags"])],
        columns=["sentence_id", "words", "labels"],
    )


train, validation = table("sentences.train.jsonl"), table("sentences.validation.jsonl")
arguments = NERArgs(
    num_train_epochs=1,
    train_batch_size=8,
    max_seq_length=64,
    overwrite_output_dir=True,
    output_dir="out",
    use_multiprocessing=False,
    use_multiprocessing_for_evaluation=False,
    no_save=True,
    silent=True,
)
model = NERModel("bert", "tiny-bert", labels=sorted(set(train["labels"])), args=arguments, use_cuda=False)
model.train_model(train)
model.eval_model(validation)
