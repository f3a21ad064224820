"""transformers' example run_summarization.py (version 4.56): `compute_metrics`.

Written anew with the same behaviour: evaluate's `rouge` with stemming, in percent, rounded to four digits. The script
puts each sentence on a line of its own with NLTK; here texts come like that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from touchstone.suite.implementations.course_7_4_5 import evaluate_rouge

supports = {"newline": ["\n"]}
choices = {"digits": 4}


def rouge(predictions: Sequence[str], *, references: Sequence[str]) -> dict[str, Any]:
    result = evaluate_rouge([text.strip() for text in predictions], [text.strip() for text in references])
    return {kind: round(value * 100, 4) for kind, value in result.items()}
