"""Faults that the properties found in code that people use, each with a line that shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """A fault of other people's code.

    Args:
        code: the library or script, with its version.
        checks: the checks of docs/contract.md that fail on it.
        says: what is wrong, in a sentence or two.
        line: a line of Python that shows it.
        prints: what the line prints.
        right: what would be right.
        thread: the upstream thread, if one is known.
    """

    code: str
    checks: str
    says: str
    line: str
    prints: str
    right: str
    thread: str = ""


ADAPTERS = "from touchstone.suite.implementations"
FAULTS = (
    Fault(
        "evaluate 0.4.6, metric `rouge`",
        "R2, R6, R7, R11",
        "The score is the median of 1000 resamplings of the texts, drawn from NumPy's global generator, and not "
        "the mean "
        "over the texts. So it changes from call to call, and exchanging predictions and references changes it.",
        f"{ADAPTERS}.course_7_4_5 import evaluate_rouge as f; import numpy; numpy.random.seed(0); "
        'a, b = ["a", "b", "a a", "a a a a"], ["a", "c", "a", "a a a a a"]; '
        'print(sorted({round(float(f(a, b)["rouge1"]), 4) for _ in range(20)}))',
        "[0.6389, 0.6528, 0.6667]",
        "[0.6389], the mean",
    ),
    Fault(
        "torchmetrics 1.9.0, `sacre_bleu_score`",
        "B3, B4",
        "If two references are equally close in length to the prediction, the first one's length counts, not "
        "the shorter "
        "one's. So the order of the references changes the score.",
        "from torchmetrics.functional.text import sacre_bleu_score as f; "
        'a, b = "a b c d", "a b c d e f"; '
        'print(*(round(f(["a b c d e"], [refs]).item(), 4) for refs in ([a, b], [b, a])))',
        "1.0 0.8187",
        "1.0 1.0, as sacreBLEU 2.6.0",
    ),
    Fault(
        "transformers 5.23.0, `DataCollatorWithFlattening`",
        "F7",
        "A row without tokens adds one label and no token, so that all labels behind it are one place too late.",
        "from transformers import DataCollatorWithFlattening; "
        'rows = [{"input_ids": [], "labels": []}, {"input_ids": [5, 6], "labels": [5, 6]}]; '
        'print(DataCollatorWithFlattening(return_tensors="np")(rows)["labels"].tolist())',
        "[[-100, -100, 6]]",
        "[[-100, 6]]",
    ),
    Fault(
        "seqeval 1.2.2, the default mode",
        "S1, S5, S8",
        "It does not know the prefixes L and U of BILOU: two neighbouring entities of one word become one entity.",
        'from seqeval.metrics.sequence_labeling import get_entities; print(get_entities(["U-PER", "U-PER"]))',
        "[('PER', 0, 1)]",
        "two entities, (0, 0) and (1, 1)",
    ),
    Fault(
        "Transformers' run_ner.py of version 4.56, `--label_all_tokens`",
        "A4, A10",
        "`B-` is replaced everywhere in a name, not only at its beginning. If the type holds `B-` too, the inner "
        "label is "
        "not found, and the later tokens of a word begin new entities.",
        f'{ADAPTERS}.run_ner import align_labels; print(align_labels([1], word_ids=[0, 0], names=["O", "B-SUB-CAT", '
        '"I-SUB-CAT"]))',
        "[1, 1]",
        "[1, 2]",
    ),
    Fault(
        "Transformers' run_qa.py of version 4.56",
        "W10, W12",
        "The search for the first token runs on over special tokens and padding. If the answer is the last token "
        "of its "
        "window, the label of its start lies behind that of its end.",
        f"{ADAPTERS}.run_qa import answer_positions; "
        "print(answer_positions([(0, 1)], offsets=[None, (0, 1), None], cls=0))",
        "(2, 1)",
        "(1, 1)",
    ),
    Fault(
        "Transformers' utils_qa.py of version 4.56",
        "N7",
        "Only the 20 likeliest starts and the 20 likeliest ends are paired. If all of these ends lie before all "
        "of these "
        "starts, there is no pair, and the answer is the literal word `empty`.",
        f"{ADAPTERS}.run_qa import pick_answer; n = 40; "
        "print(pick_answer([[0] * n + [9] * n], end_logits=[[9] * n + [0] * n], "
        'offsets=[[(i, i + 1) for i in range(2 * n)]], context="x" * 2 * n)["text"])',
        "empty",
        "x",
    ),
    Fault(
        "The course, section 7.2, the evaluation in its own loop",
        "S5, S8, S9",
        "Predictions and labels are exchanged, and so are precision and recall.",
        f"{ADAPTERS}.course_7_2_loop import score_entities; "
        'found = score_entities([[1, 0]], references=[[1, 1]], names=["O", "B-X", "I-X"]); '
        'print(found["precision"], found["recall"])',
        "0.5 1.0",
        "1.0 0.5",
        "course#641",
    ),
    Fault(
        "The course, section 7.3, whole-word masking",
        "C5, M4",
        "The word ids of each text begin at 0 again. Where two texts of one word meet in a chunk, or only "
        "tokens without "
        "a word lie between equal ids, two words are masked as one.",
        f"{ADAPTERS}.course_7_3 import chunk; "
        'print(chunk({"input_ids": [[5], [6]], "word_ids": [[0], [0]]}, length=2)["word_ids"])',
        "[[0, 0]]",
        "[[0, 1]]",
    ),
    Fault(
        "The course, section 7.5, with evaluate 0.4.6",
        "R1",
        "It reads `.mid.fmeasure` of each score, but evaluate returns numbers.",
        f'{ADAPTERS}.course_7_4_5 import rouge; rouge(["a"], references=["a"])',
        "AttributeError: 'numpy.float64' object has no attribute 'mid'",
        "a score",
    ),
    Fault(
        "The course, section 7.6, `evaluate` on one process with accelerate 1.15",
        "X1",
        "`accelerator.gather` returns the loss without dimensions, which `torch.cat` refuses.",
        f"{ADAPTERS}.course_7_6 import perplexity; perplexity([1.0], tokens=[1])",
        "RuntimeError: zero-dimensional tensor (at position 0) cannot be concatenated",
        "2.718281745910645",
    ),
    Fault(
        "sacrebleu 2.6.0",
        "B1",
        "A perfect score can exceed 100, because the mean of the logarithms is not exact.",
        'from sacrebleu import corpus_bleu; print(corpus_bleu(["the the the the"], [["the the the the"]]).score)',
        "100.00000000000004",
        "100.0",
    ),
)
