"""Code in the shape people have it, under the functions of the contract.

    subject = load("my_project.data:tokenize_and_align_labels", shape="map:token-classification")

A function for `Dataset.map` has its tokenizer inside, a collator holds one, and `compute_metrics` gets logits. Each
shape is a class that offers functions of the contract by calling such code: with a tokenizer that is made for the
example, and with rows, features or logits that mean the same as the contract's arguments. What a shape cannot show is
not offered, and what an example asks beyond it is outside the domain (`NotImplementedError`).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from touchstone.properties.oracles import IGNORED, SCHEMES

CLS, SEP, PAD = "[CLS]", "[SEP]", "[PAD]"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DROPPED = "\u200f"
"""A character that the tokenizer drops: a word of it has no token."""
SETTERS = ("tag", "label")
"""A column whose name contains one of these holds the labels of the words; any other holds the words."""
CONLL = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "B-MISC", "I-MISC")


class ShapeError(Exception):
    """Code cannot be used in a shape; the message says why and what to do."""


def shaped_as(target: Any, shape: str) -> object:
    """Return an object with functions of the contract that call `target`.

    Args:
        target: a function or an object, as the shape says.
        shape: a key of `SHAPES`.

    Raises:
        ShapeError: no such shape, or the target is not callable.
    """
    if shape not in SHAPES:
        raise ShapeError(f"{shape!r} is no shape: use one of {', '.join(SHAPES)}")
    if not callable(target):
        raise ShapeError(f"a {shape} must be callable, and this is {type(target).__name__}")
    return SHAPES[shape](target)


# Where code keeps its tokenizer and its label names -------------------------------------------------------------------


def places(target: Any) -> Iterator[tuple[Mapping[str, Any], Callable[[str, Any], None]]]:
    """Yield the named values that code reads, and how to set one: its attributes, keywords, closure and globals."""
    if isinstance(target, functools.partial):
        yield target.keywords, target.keywords.__setitem__
        yield from places(target.func)
        return
    function = inspect.unwrap(target) if inspect.isroutine(target) else type(target).__call__
    if inspect.ismethod(function):
        yield vars(function.__self__), functools.partial(setattr, function.__self__)
        function = function.__func__
    elif not inspect.isroutine(target):
        yield vars(target), functools.partial(setattr, target)
    if not inspect.isfunction(function):
        return
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    filled = {name: cell.cell_contents for name, cell in cells.items() if _is_filled(cell)}
    yield filled, lambda name, value: setattr(cells[name], "cell_contents", value)
    parameters = inspect.signature(function).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    if function.__kwdefaults__:
        yield defaults, function.__kwdefaults__.__setitem__
    read = {name: function.__globals__[name] for name in _read(function)}
    yield read, function.__globals__.__setitem__


def _read(function: Any) -> set[str]:
    """Return the global names that a function reads, itself or in functions of its module that it calls."""
    names: set[str] = set()
    waiting, seen = [function.__code__], set()
    while waiting:
        code = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        waiting += [each for each in code.co_consts if inspect.iscode(each)]
        for name in code.co_names:
            if name not in function.__globals__:
                continue
            names.add(name)
            other = function.__globals__[name]
            if inspect.isfunction(other) and other.__globals__ is function.__globals__:
                waiting.append(other.__code__)
    return names


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


@contextlib.contextmanager
def replaced(target: Any, changes: Callable[[Any], Any]) -> Iterator[None]:
    """Replace values that code reads while it is called, and put them back.

    Args:
        changes: returns the value to use in place of one, or the same object.
    """
    undo: list[tuple[Callable[[str, Any], None], str, Any]] = []
    try:
        for values, put in places(target):
            for name, value in list(values.items()):
                other = changes(value)
                if other is not value:
                    undo.append((put, name, value))
                    put(name, other)
        yield
    finally:
        for put, name, value in reversed(undo):
            put(name, value)


def is_tokenizer(value: Any) -> bool:
    """Return whether a value is a tokenizer of transformers."""
    base = sys.modules.get("transformers.tokenization_utils_base")
    return base is not None and isinstance(value, base.PreTrainedTokenizerBase)


def names_in(target: Any) -> tuple[str, ...] | None:
    """Return the label names that code reads from a list, None if it reads none."""
    return next((tuple(value) for values, _ in places(target) for value in values.values() if _are_tags(value)), None)


def names_beside(target: Any) -> tuple[str, ...] | None:
    """Return the label names in a list of the module that code is in, None if there is none."""
    module = sys.modules.get(getattr(target, "__module__", ""))
    return next((tuple(value) for value in vars(module).values() if _are_tags(value)), None) if module else None


def _are_tags(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) < 3 or not all(isinstance(each, str) for each in value):
        return False
    return "O" in value and all(each == "O" or each[1:2] == "-" for each in value)


def with_names(value: Any, old: Sequence[str], new: Sequence[str]) -> Any:
    """Return `value` with other label names if it holds all of the old ones, as a list or a dictionary."""
    if _are_tags(value) and tuple(value) == tuple(old):
        return type(value)(new)
    if isinstance(value, dict) and len(value) == len(old):
        if value == dict(zip(old, range(len(old)), strict=True)):
            return dict(zip(new, range(len(new)), strict=True))
        if value == dict(enumerate(old)):
            return dict(enumerate(new))
    return value


def _derives_from(target: Any, names: Sequence[str]) -> bool:
    """Return whether code keeps numbers that were made from its label names, such as run_ner's `b_to_i_label`."""
    return any(
        isinstance(value, (list, tuple)) and len(value) == len(names) and all(type(each) is int for each in value)
        for values, _ in places(target)
        for value in values.values()
    )


def _scheme_of(names: Sequence[str]) -> list[str]:
    prefixes = {name[0] for name in names}
    fitting = [scheme for scheme, known in SCHEMES.items() if prefixes <= {*known, "O"}]
    return fitting[:1] or list(SCHEMES)


# Tokenizers made for an example ---------------------------------------------------------------------------------------


def letters_tokenizer(before: int, after: int) -> Any:
    """Return a fast tokenizer that makes a token of each letter, with special tokens before and after."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({token: id for id, token in enumerate((PAD, CLS, SEP, *LETTERS))}, PAD))
    tokenizer.normalizer = normalizers.Replace(DROPPED, "")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    template = " ".join([*[CLS] * before, "$A", *[SEP] * after])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=f"{template} $B:1", special_tokens=[(CLS, 1), (SEP, 2)]
    )
    names = {"pad_token": PAD, "cls_token": CLS, "sep_token": SEP, "unk_token": PAD}
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=tokenizer, model_max_length=512, **names)


def characters_tokenizer(characters: set[str]) -> Any:
    """Return a fast tokenizer with a token for each character, which decodes to the very text."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    tokens = (PAD, SEP, *sorted(characters))
    tokenizer = Tokenizer(models.WordLevel({token: id for id, token in enumerate(tokens)}, PAD))
    tokenizer.decoder = decoders.Fuse()
    make: Any = PreTrainedTokenizerFast
    names = {"pad_token": PAD, "eos_token": SEP, "unk_token": PAD}
    return make(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)


@functools.lru_cache(maxsize=256)
def plain_tokenizer(size: int, *, pad_id: int, side: str) -> Any:
    """Return a tokenizer with `size` ids, of which one is padding."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    model = WordLevel({f"token-{id}": id for id in range(size)}, unk_token=None)
    make: Any = PreTrainedTokenizerFast
    return make(tokenizer_object=Tokenizer(model), pad_token=f"token-{pad_id}", padding_side=side)


# Shapes ---------------------------------------------------------------------------------------------------------------


class Labelled:
    """What shapes with label names share: names that the code reads are exchanged, or its own names are drawn.

    Code that reads no list of names is asked with the list in its module, or else with the names of CoNLL, in which B-
    and I- take turns.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.own = names_in(target)
        self.fixed = self.own is None or _derives_from(target, self.own)
        names = list(self.own or names_beside(target) or CONLL)
        self.outside, self.inside = names.index("O"), next(at for at, name in enumerate(names) if name[0] == "I")
        self.names = names
        self.supports: dict[str, Any] = {"scheme": _scheme_of(names)} | ({"names": [names]} if self.fixed else {})

    @contextlib.contextmanager
    def using(self, names: Sequence[str], tokenizer: Any = None) -> Iterator[None]:
        """Let the code use these label names and this tokenizer."""

        def change(value: Any) -> Any:
            if tokenizer is not None and is_tokenizer(value):
                return tokenizer
            return value if self.fixed or self.own is None else with_names(value, self.own, names)

        with replaced(self.target, change):
            yield


class _Row(dict[str, Any]):
    """A batch of rows whose columns may have any name: those with `tag` or `label` hold labels, the others words."""

    def __init__(self, words: Any, labels: Any) -> None:
        super().__init__(tokens=words, ner_tags=labels)
        self.words, self.labels = words, labels

    def __missing__(self, column: str) -> Any:
        return self.labels if any(part in column.lower() for part in SETTERS) else self.words


class TokenClassificationMap(Labelled):
    """`tokenize_and_align_labels(examples)`, with the tokenizer inside, as `align_labels` and its batched version.

    Whether later tokens of a word have a label is taken from what it does with a word that is no entity.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        try:
            labels = self._rows([[self.outside]], [[0, 0]], self.names)[0]
        except Exception:  # whatever is wrong, the checks report it with their examples
            return
        self.supports |= {"strategy": ["first" if labels == [self.outside, IGNORED] else "all"]}

    def align_labels(
        self,
        labels: Sequence[int],
        *,
        word_ids: Sequence[int | None],
        names: Sequence[str],
        scheme: str = "IOB2",
    ) -> Any:
        return self._rows([list(labels)], [list(word_ids)], names)[0]

    def align_labels_batch(self, labels: Any, *, word_ids: Any, names: Sequence[str], scheme: str = "IOB2") -> Any:
        rows = [[None if word == -1 else int(word) for word in row] for row in word_ids.to_lists()]
        return self._rows(labels.to_lists(), rows, names) if rows else []

    def _rows(self, labels: list[list[int]], word_ids: list[list[int | None]], names: Sequence[str]) -> list[Any]:
        ends = [_special_ends(row) for row in word_ids]
        if len(set(ends)) != 1:
            raise NotImplementedError("rows with different special tokens are not of one tokenizer")
        words = [spelled(row, len(tags)) for row, tags in zip(word_ids, labels, strict=True)]
        rows = _Row(words, [[int(label) for label in row] for row in labels])
        with self.using(names, letters_tokenizer(*ends[0])):
            result = self.target(rows)
        column = result["labels"] if "labels" in result else result["label"]
        sizes = [len(row) for row in word_ids]
        return [[int(label) for label in row][:size] for row, size in zip(column, sizes, strict=True)]


def _special_ends(word_ids: Sequence[int | None]) -> tuple[int, int]:
    """Return the numbers of special tokens before and after the words."""
    real = [at for at, word in enumerate(word_ids) if word is not None]
    if not real:
        return len(word_ids), 0
    return real[0], len(word_ids) - 1 - real[-1]


def spelled(word_ids: Sequence[int | None], n_words: int) -> list[str]:
    """Return words that the tokenizer of letters cuts into these tokens.

    Raises:
        NotImplementedError: no tokenizer of words makes such word ids.
    """
    inner = [word for word in word_ids if word is not None]
    before, after = _special_ends(word_ids)
    if len(inner) != len(word_ids) - before - after or inner != sorted(inner):
        raise NotImplementedError("special tokens between words, or words in another order")
    if inner and inner[-1] >= n_words:
        raise ValueError(f"word id {inner[-1]} for {n_words} words")
    return [LETTERS[word % len(LETTERS)] * inner.count(word) or DROPPED for word in range(n_words)]


class Collator:
    """What collators share: their tokenizer is exchanged for one with the example's padding."""

    COLUMNS: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids", "labels")

    def __init__(self, target: Any) -> None:
        self.target = target

    def batch(self, features: Sequence[Mapping[str, Any]], *, pad_id: int, side: str) -> dict[str, Any]:
        """Return the batch that the collator makes."""
        if other := {name for feature in features for name in feature} - {*self.COLUMNS}:
            raise NotImplementedError(f"a Trainer removes the column {sorted(other)[0]} before it collates")
        largest = max([pad_id, *(int(id) for feature in features for id in feature["input_ids"])])
        tokenizer = plain_tokenizer(largest + 1, pad_id=pad_id, side=side)
        rows = [{name: [int(each) for each in value] for name, value in feature.items()} for feature in features]
        collator = copy.copy(self.target)
        with replaced(collator, lambda value: tokenizer if is_tokenizer(value) else value):
            return dict(collator(rows))


class TokenClassificationCollator(Collator):
    """A collator for token classification, as `pad_batch`."""

    def pad_batch(self, features: Sequence[Mapping[str, Any]], *, pad_id: int, side: str = "right") -> Any:
        return self.batch(features, pad_id=pad_id, side=side)


class Seq2SeqCollator(Collator):
    """A collator for translation and summarization, as `pad_seq2seq`: padded on the right, as such models are trained.

    The decoder's input is not looked at.
    """

    supports: Mapping[str, Any] = {"side": ["right"], "label_side": ["right"]}

    def pad_seq2seq(self, features: Sequence[Mapping[str, Any]], *, pad_id: int, side: str = "right") -> Any:
        batch = self.batch(features, pad_id=pad_id, side=side)
        batch.pop("decoder_input_ids", None)
        return batch


class CausalCollator(Collator):
    """A collator for causal language modelling, as `causal_labels`."""

    def causal_labels(self, input_ids: Any, *, attention_mask: Any) -> Any:
        ids, mask = np.asarray(input_ids, dtype=np.int64), np.asarray(attention_mask, dtype=np.int64)
        if ids.shape != mask.shape or not np.isin(mask, (0, 1)).all():
            raise ValueError(f"a mask of shape {mask.shape} for ids of shape {ids.shape}")
        padding = ids[mask == 0]
        if len(set(padding.tolist())) > 1:
            raise NotImplementedError("a tokenizer has one padding id")
        pad_id = int(padding[0]) if padding.size else int(ids.max(initial=0)) + 1
        left = bool((mask[:, :1] == 0).any())
        rows = [row[flags == 1].tolist() for row, flags in zip(ids, mask, strict=True)]
        if max(map(len, rows), default=0) != ids.shape[1]:
            raise NotImplementedError("a collator pads to the longest row")
        features = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in rows]
        return self.batch(features, pad_id=pad_id, side="left" if left else "right")["labels"]


class EntityMetrics(Labelled):
    """`compute_metrics(eval_pred)` of token classification, as `score_entities`: it gets logits, padded with -100.

    Whether it is strict is taken from what it says of an entity that begins with I-.
    """

    def __init__(self, target: Any) -> None:
        super().__init__(target)
        sentence = [[self.outside, self.inside]]
        try:
            f1 = self.score_entities(sentence, references=sentence, names=self.names)["f1"]
        except Exception:  # whatever is wrong, the checks report it with their examples
            return
        self.supports |= {"mode": ["lenient" if f1 else "strict"]}

    def score_entities(
        self, predictions: Any, *, references: Any, names: Sequence[str], scheme: str = "IOB2", mode: str = "lenient"
    ) -> Any:
        rows = [list(map(int, row)) for row in references]
        width = max(map(len, rows), default=0)
        if not rows or not width:
            raise NotImplementedError("an evaluation has rows")
        labels = np.full((len(rows), width), IGNORED)
        logits = np.zeros((len(rows), width, len(names)), dtype=np.float32)
        for number, (row, guesses) in enumerate(zip(rows, predictions, strict=True)):
            labels[number, : len(row)] = row
            for place, guess in enumerate(guesses):
                logits[number, place, guess if guess != IGNORED else 0] = 1.0
        from transformers import EvalPrediction

        with self.using(names):
            scores = self.target(EvalPrediction(logits, labels))
        return {name.removeprefix("eval_").removeprefix("overall_"): value for name, value in scores.items()}


class TextMetrics:
    """`compute_metrics(eval_pred)` of translation or summarization, as `bleu` or `rouge`: it gets ids and decodes them.

    Its scale (up to 1 or up to 100) and its rounding are taken from what it says of two texts.
    """

    def __init__(self, target: Any) -> None:
        self.target = target
        self.scale = 1.0
        self.choices: dict[str, Any] = {}
        try:
            best = self.scores(["the cat sat on the mat"], ["the cat sat on the mat"])
            other = self.scores(["the cat sat on a red mat today"], ["the cat sat on the mat"])
        except Exception:  # whatever is wrong, the checks report it with their examples
            return
        if max(best.values(), default=0.0) <= 1.0:
            self.scale = 100.0
        values = [value * self.scale for value in other.values() if value]
        digits = [at for at in range(1, 7) if values and all(abs(round(each, at) - each) < 1e-9 for each in values)]
        if digits:
            self.choices["digits"] = digits[0]

    def bleu(self, predictions: Sequence[str], *, references: Sequence[Any]) -> Any:
        texts = [[each] if isinstance(each, str) else list(each) for each in references]
        if len(texts) != len(predictions):
            raise ValueError(f"{len(predictions)} predictions for {len(texts)} references")
        if any(len(each) != 1 for each in texts):
            raise NotImplementedError("labels are one reference")
        scores = self.scores(list(predictions), [each for [each] in texts])
        name = next((name for name in ("bleu", "sacrebleu", "score") if name in scores), None)
        return {"bleu": scores[name] * self.scale} if name else scores

    def rouge(self, predictions: Sequence[str], *, references: Sequence[str]) -> Any:
        if len(predictions) != len(references):
            raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
        scores = self.scores(list(predictions), list(references))
        return {name: value * self.scale for name, value in scores.items() if name.startswith("rouge")}

    def scores(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        """Return what the code says of texts, which it gets as ids padded with -100 and the padding id."""
        from transformers import EvalPrediction

        if not predictions:
            raise NotImplementedError("an evaluation has rows")
        tokenizer = characters_tokenizer({*"".join([*predictions, *references])})
        width = 1 + max(map(len, [*predictions, *references]))
        ids, labels = (
            [
                [
                    *tokenizer.convert_tokens_to_ids(list(text)),
                    tokenizer.eos_token_id,
                    *[fill] * (width - 1 - len(text)),
                ]
                for text in texts
            ]
            for texts, fill in ((predictions, tokenizer.pad_token_id), (references, IGNORED))
        )
        with replaced(self.target, lambda value: tokenizer if is_tokenizer(value) else value):
            scores = self.target(EvalPrediction(np.array(ids), np.array(labels)))
        return {name.removeprefix("eval_"): float(value) for name, value in scores.items() if name != "gen_len"}


class BleuMetrics(TextMetrics):
    """`compute_metrics` of translation."""

    rouge = None  # type: ignore[assignment]


class RougeMetrics(TextMetrics):
    """`compute_metrics` of summarization."""

    bleu = None  # type: ignore[assignment]


SHAPES: dict[str, Callable[[Any], object]] = {
    "map:token-classification": TokenClassificationMap,
    "collator:token-classification": TokenClassificationCollator,
    "collator:translation": Seq2SeqCollator,
    "collator:summarization": Seq2SeqCollator,
    "collator:causal-lm": CausalCollator,
    "metrics:token-classification": EntityMetrics,
    "metrics:translation": BleuMetrics,
    "metrics:summarization": RougeMetrics,
}
"""The shapes by name: what the code is, and the task."""
