"""`touchstone show TASK`."""

from __future__ import annotations

import argparse

from touchstone.cli import sources

EPILOG = """\
what you see:
  the data's columns and sizes; examples drawn by --seed; words above their
  labels, and tokens above the labels that alignment gave them (-100: no loss,
  no score); for masked-lm the chunks, and one with its hidden tokens above what
  is to be guessed; for translation and summarization pairs of texts, and what
  the decoder reads above what it is to write; for causal-lm the chunks, and one
  above what is predicted at each of its places; for question-answering every
  window of an example with its answer marked; a batch as the model gets it;
  lengths, the share of padding, unknown tokens, and how often each label occurs.

  with --probe, what the checkpoint's model writes, answers or fills in: before
  training as it is, and after with the checkpoint that training saved.

examples:
  touchstone show token-classification
  touchstone show token-classification+first --samples 1
  touchstone show masked-lm --seed 7
  touchstone show question-answering --samples 1
  touchstone show token-classification --profile small --mirror DIR
  touchstone show translation --probe
  touchstone show translation --probe \\
      --checkpoint translation=checkpoints/checkpoint-625
  touchstone show token-classification \\
      --dataset token-classification=/data/my-corpus | less

exit codes:
  0 shown; 2 there is no such task, or its data cannot be had.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser], name: str) -> None:
    parser = subparsers.add_parser(
        name,
        help="look at a task's data as the model gets it",
        description="Shows what the course shows when it looks at its data, for any data.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sources.add_arguments(parser)
    parser.add_argument("--samples", type=sources.count, default=3, metavar="N", help="examples to show (default: 3)")
    parser.add_argument(
        "--seed", type=sources.natural, default=42, metavar="K", help="draws the examples (default: 42)"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="also show what the checkpoint's model makes of the task's probe: texts it writes, questions it answers, "
        "a gap it fills (needs the weights)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    def quietly() -> int:
        from touchstone.engines.session import quiet

        with quiet():
            return _show(options)

    return sources.reporting_problems(quietly)


def _show(options: argparse.Namespace) -> int:
    from touchstone.cli.terminal import console
    from touchstone.pipelines import PIPELINES
    from touchstone.show import tables
    from touchstone.show.tasks import LOOKS

    spec, source = sources.open_spec(options)
    pipeline = PIPELINES[spec.task](source, options=spec.options, seed=options.seed)
    out = console()
    out.print(f"{spec.name}, profile {spec.profile}", style="bold")
    for name, declared in (("data", spec.data), ("checkpoint", spec.checkpoint)):
        out.print(f"  {name}: {tables.settings(declared)}", highlight=False, markup=False)
    for piece in LOOKS[spec.task](
        pipeline, samples=options.samples, seed=options.seed, batch_size=spec.recipe.batch_size, width=out.width
    ):
        out.print(piece, highlight=False, markup=False)
    if options.probe:
        for piece in tables.probe(pipeline, seed=options.seed):
            out.print(piece, highlight=False, markup=False)
    return 0
