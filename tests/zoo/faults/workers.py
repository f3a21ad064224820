"""Faults of worker processes: the rows they read, and the random numbers they draw."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="workers-seeded-alike",
        script="ner_workers",
        says="worker_init_fn seeds numpy with a constant: both workers draw the same numbers, in every epoch.",
        edits=(("    worker_seed = torch.initial_seed() % 2**32\n", "    worker_seed = SEED\n"),),
        probes=("workers-draw-differently",),
        cause=r"worker_init_fn gives .* same seed in each worker.*\(.*:\d+\)",
        seen="https://pytorch.org/docs/stable/notes/faq.html#my-data-loader-workers-return-identical-random-numbers",
    ),
    Fault(
        id="workers-copy-a-generator",
        script="mlm_workers",
        says="The collator's generator is made before the workers are: each worker masks the same places.",
        edits=(
            ("        self.rng = None\n", "        self.rng = np.random.default_rng(5)\n"),
            (
                "        if self.rng is None:\n            self.rng = np.random.default_rng(torch.initial_seed())\n",
                "",
            ),
        ),
        probes=("workers-draw-differently",),
        cause="numpy.random.Generator.* made before the workers started",
        seen="https://github.com/pytorch/pytorch/issues/5059",
    ),
    Fault(
        id="workers-make-the-same-generator",
        script="mlm_workers",
        says="Each worker makes its generator from the same seed.",
        edits=(("np.random.default_rng(torch.initial_seed())", "np.random.default_rng(42)"),),
        probes=("workers-draw-differently",),
        cause="from the same seed",
    ),
    Fault(
        id="workers-share-all-texts",
        script="clm_stream_loop",
        says="A stream is shuffled and never split: both workers read all texts.",
        edits=(
            (
                "        info = get_worker_info()\n        if info is not None:\n"
                "            texts = itertools.islice(texts, info.id, None, info.num_workers)\n",
                "",
            ),
        ),
        probes=("workers-split-the-stream",),
        cause="each worker has a copy of the stream",
        seen="https://pytorch.org/docs/stable/data.html#torch.utils.data.IterableDataset",
    ),
    Fault(
        id="workers-split-twice",
        script="translation_stream_workers",
        says="Each worker reads its half of the file, and of this every second row: half of the rows is never read.",
        edits=(
            ("        for row in self.rows[first:last]:\n", "        for row in self.rows[first:last:step]:\n"),
            (
                "        first, last = self.part()\n",
                "        first, last = self.part()\n        info = get_worker_info()\n"
                "        step = info.num_workers if info else 1\n",
            ),
        ),
        probes=("workers-split-the-stream",),
        cause="the shares do not add up.*Pairs",
    ),
    Fault(
        id="workers-overlap",
        script="translation_stream_workers",
        says="The start of a worker's part is not moved by its number: both workers read the first half.",
        edits=(("first = self.start + info.id * size", "first = self.start"),),
        probes=("workers-split-the-stream",),
        cause="each worker has a copy of the stream",
    ),
)
