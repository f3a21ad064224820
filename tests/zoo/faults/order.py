"""Faults of the order of training rows."""

from tests.zoo.fault import Fault

FAULTS = (
    Fault(
        id="same-order-in-every-epoch",
        script="ner_own_sampler",
        says="The sampler seeds its generator anew for each epoch and leaves the epoch out.",
        edits=(
            ("torch.Generator().manual_seed(self.seed + self.epoch)", "torch.Generator().manual_seed(self.seed)"),
            ("    def set_epoch(self, epoch):\n        self.epoch = epoch\n\n", ""),
        ),
        probes=("epochs-differ",),
        cause="seeded anew.*BucketSampler",
        seen="https://github.com/facebookresearch/ClassyVision/pull/118",
    ),
    Fault(
        id="set-epoch-never-called",
        script="ner_own_sampler",
        says="The loader is not prepared by accelerate, so nobody calls the sampler's set_epoch.",
        edits=(("        return self.accelerator.prepare(loader)\n", "        return loader\n"),),
        probes=("epochs-differ",),
        cause="set_epoch.*nobody calls",
        seen="https://github.com/lucidrains/DALLE-pytorch/pull/230",
    ),
    Fault(
        id="sampler-loses-the-rest",
        script="ner_own_sampler",
        says="The sampler drops the rows behind the last full bucket, which are never seen if it does not shuffle.",
        edits=(
            (
                "            yield from sorted(",
                "            if start + 150 <= len(order):\n                yield from sorted(",
            ),
        ),
        probes=("every-row-trained-once",),
        cause="says that it draws 200 rows, and draws 100",
    ),
    Fault(
        id="order-without-seed",
        script="ner_own_sampler",
        says="The sampler's generator is seeded from the operating system.",
        edits=(
            (
                "        generator = torch.Generator().manual_seed(self.seed + self.epoch)\n",
                "        generator = torch.Generator()\n        generator.seed()\n",
            ),
        ),
        probes=("same-seed-same-order",),
        cause="no seed reaches",
    ),
    Fault(
        id="sampler-repeats-a-bucket",
        script="ner_own_sampler",
        says="Every bucket of the sampler is cut from the first rows of the order, which is not shuffled.",
        edits=(
            (
                "torch.randperm(len(self.lengths), generator=generator).tolist()",
                "list(range(len(self.lengths)))",
            ),
            ("order[start : start + 100]", "order[start // 2 : start // 2 + 100]"),
        ),
        probes=("every-row-trained-once",),
        cause="same 50 rows are left out",
    ),
    Fault(
        id="loop-without-set-epoch",
        script="ner_plain",
        says="A DistributedSampler shuffles the rows, and nobody calls its set_epoch.",
        edits=(
            (
                "DataLoader(train_data, batch_size=6, shuffle=True, collate_fn=collate)",
                "DataLoader(train_data, 6, sampler=DistributedSampler(train_data, 1, 0), collate_fn=collate)",
            ),
            (
                "import DataLoader, Dataset\n",
                "import DataLoader, Dataset\nfrom torch.utils.data.distributed import DistributedSampler\n",
            ),
        ),
        probes=("epochs-differ",),
        cause="set_epoch\\(epoch\\) is not called",
        seen="https://github.com/lucidrains/DALLE-pytorch/pull/230",
    ),
)
