"""Windows and answers for extractive question answering."""


def find_tokens(offsets, sequence_ids, start, end, null=0):
    """Return the first and the last token of an answer, or the null place twice if the window does not hold it."""
    context = [i for i, s in enumerate(sequence_ids) if s == 1]
    if not context or offsets[context[0]][0] > start or offsets[context[-1]][1] < end:
        return null, null
    first = max(i for i in context if offsets[i][0] <= start)
    last = min(i for i in context if offsets[i][1] >= end)
    return first, last


class Windows:
    """A function for `Dataset.map`: overlapping windows of question and context, with the answer's place."""

    def __init__(self, tokenizer, max_length=64, stride=16):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.stride = stride

    def __call__(self, batch):
        questions = [q.strip() for q in batch["question"]]
        enc = self.tokenizer(
            questions,
            batch["context"],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding="max_length",
        )
        rows = enc.pop("overflow_to_sample_mapping")
        offsets = enc.pop("offset_mapping")
        starts, ends = [], []
        for window, row in enumerate(rows):
            answer = batch["answers"][row]
            begin, end = 0, 0
            if answer["answer_start"]:
                where = answer["answer_start"][0]
                begin, end = find_tokens(
                    offsets[window], enc.sequence_ids(window), where, where + len(answer["text"][0])
                )
            starts.append(begin)
            ends.append(end)
        enc["start_positions"] = starts
        enc["end_positions"] = ends
        return enc
