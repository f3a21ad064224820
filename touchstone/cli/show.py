"""`touchstone show TASK`."""

from __future__ import annotations

import argparse

from touchstone.cli import shared

DESCRIPTION = "Show a task's data as the course does when it looks at its data. Works with any data set."
EPILOG = """\
output:
  all tasks            the columns and sizes of the data, example rows (chosen
                       by --seed), a padded batch, and token statistics:
                       lengths, the share of padding, unknown tokens
  token-classification words above their labels, and tokens above the labels
                       they get (-100: ignored by loss and score); label counts
  masked-lm            the chunks, and one chunk with its masked tokens
  causal-lm            the chunks, and one chunk above the tokens to predict
  translation,         pairs of texts, and the decoder's inputs above the
  summarization        tokens it is trained to produce
  question-answering   every window of an example, with the answer marked

  --sample-outputs also shows what the checkpoint's model produces: texts,
  answers, or words for a gap. Give the checkpoint that a training run saved to
  see the outputs after training.

examples:
  touchstone show token-classification
  touchstone show token-classification+first --samples 1
  touchstone show masked-lm --seed 7
  touchstone show question-answering --samples 1
  touchstone show token-classification --profile small --mirror DIR
  touchstone show translation --sample-outputs
  touchstone show translation --sample-outputs \\
      --checkpoint translation=checkpoints/checkpoint-625
  touchstone show token-classification \\
      --dataset token-classification=/data/my-corpus | less

exit codes:
  0 success; 2 the task does not exist, or its data is not available.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    shared.add_spec_arguments(parser)
    parser.add_argument(
        "--samples", type=shared.positive, default=3, metavar="N", help="number of examples to show (default: 3)"
    )
    parser.add_argument(
        "--seed", type=shared.non_negative, default=42, metavar="K", help="seed that chooses the examples (default: 42)"
    )
    parser.add_argument(
        "--sample-outputs",
        action="store_true",
        help="also show what the checkpoint's model produces for the task's sample inputs (loads the weights)",
    )


def run(options: argparse.Namespace) -> int:
    from touchstone.engines.session import quiet
    from touchstone.pipelines import PIPELINES
    from touchstone.show import tables
    from touchstone.show.tasks import SHOW

    with quiet():
        spec, source = shared.open_spec(options)
        pipeline = PIPELINES[spec.task](source, options=spec.options, seed=options.seed)
        out = shared.console()
        out.print(f"{spec.name}, profile {spec.profile}", style="bold")
        for name, declared in (("data", spec.data), ("checkpoint", spec.checkpoint)):
            out.print(f"  {name}: {tables.settings(declared)}", highlight=False, markup=False)
        view = tables.View(samples=options.samples, seed=options.seed, width=out.width)
        for piece in SHOW[spec.task](pipeline, view=view, batch_size=spec.recipe.batch_size):
            out.print(piece, highlight=False, markup=False)
        if options.sample_outputs:
            for piece in tables.sample_outputs(pipeline, seed=options.seed):
                out.print(piece, highlight=False, markup=False)
    return 0
