"""The implementation under test: it is loaded by name, and every call of one of its functions is recorded."""

from __future__ import annotations

import difflib
import gc
import importlib
import os
import sys
import traceback
import types
import warnings
from collections.abc import Callable, Hashable
from typing import Any

import hypothesis

from touchstone.contract import NAMES
from touchstone.properties.domain import Domain, DomainError, OutsideDomain
from touchstone.properties.failure import Call, Kind, Mismatch, Trace
from touchstone.properties.returns import shaped
from touchstone.properties.shapes import ShapeError, shaped_as
from touchstone.properties.values import fresh, plain, spell_out

DEFAULT = "touchstone.stages"

USUAL_NAMES = {
    "align_labels_with_tokens": "align_labels",
    "tokenize_and_align_labels": "align_labels",
    "group_texts": "chunk",
    "whole_word_masking_data_collator": "mask_tokens",
    "shift_tokens_right": "shift_right",
    "keytoken_weighted_loss": "key_token_weights",
    "prepare_train_features": "make_windows and answer_positions",
    "preprocess_training_examples": "make_windows and answer_positions",
    "postprocess_qa_predictions": "pick_answer",
    "compute_metrics": "score_entities, bleu, rouge or squad_scores",
}
"""Names that the course and example scripts use, and the functions of the contract that do the same inner work."""


class ImplementationError(Exception):
    """The name given as `--implementation` cannot be tested; the message says why and what to do."""


class Subject:
    """An implementation as the checks see it: `subject.align_labels(...)` records the call and returns plain values.

    The implementation gets copies of all arguments, and only those that its functions take. Warnings that it raises
    are not shown. An example that it does not claim to support is drawn again.

    Attributes:
        domain: what the implementation can be asked.
        known: exceptions that a check has reported, with that check's id. Examples that end in one are drawn again.
        muted: kinds of failure that are not looked for.
        met: the known exceptions that were met again.
    """

    def __init__(self, target: object, *, name: str, module: str = "", attribute: str = "") -> None:
        self.target = target
        self.name = name
        self.module = module
        self.attribute = attribute
        self.trace = Trace()
        self.domain = Domain.of(target)
        self.known: dict[Hashable, str] = {}
        self.muted: set[Kind] = set()
        self.met: set[Hashable] = set()

    @classmethod
    def of(cls, implementation: object) -> Subject:
        """Make a subject from a module, an object, or the name of either; a subject is returned unchanged."""
        if isinstance(implementation, Subject):
            return implementation
        if isinstance(implementation, str):
            return load(implementation)
        if isinstance(implementation, types.ModuleType):
            return cls(implementation, name=implementation.__name__, module=implementation.__name__)
        name = getattr(implementation, "__qualname__", type(implementation).__qualname__)
        return cls(implementation, name=name, attribute="implementation")

    def offers(self, stage: str) -> bool:
        """Return whether the implementation has a function of this name that the contract can call."""
        return callable(getattr(self.target, stage, None)) and stage not in self.domain.unusable

    @property
    def missing(self) -> tuple[str, ...]:
        """The functions of the contract that are not offered, in the contract's order."""
        return tuple(stage for stage in NAMES if not self.offers(stage))

    @property
    def parts(self) -> dict[str, str]:
        """What each function supports in words, for those that do not support everything."""
        return {stage: part for stage in NAMES if self.offers(stage) and (part := self.domain.sentence(stage))}

    def remark(self, **remarks: object) -> None:
        """Keep remarks on the current example; a failure shows them above its input."""
        self.trace.remarks.update({name: str(text) for name, text in remarks.items()})

    def __getattr__(self, stage: str) -> Callable[..., Any]:
        if stage not in NAMES:
            raise AttributeError(stage)

        def call(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            return shaped(stage, plain(self.raw(stage, *args, **kwargs)))

        return call

    def raw(self, stage: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function with copies of the arguments and return its result unchanged."""
        __tracebackhide__ = True
        return self.record(stage, args, kwargs, hand_over=fresh)

    def record(
        self, stage: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, hand_over: Callable[[Any], Any]
    ) -> Any:
        """Call a function and record the call. `hand_over` maps each recorded argument to the one that is passed."""
        __tracebackhide__ = True
        try:
            kwargs = self.domain.arguments(stage, args, kwargs)
        except OutsideDomain:
            hypothesis.reject()
        call = Call(stage, args, kwargs)
        self.trace.calls.append(call)
        function = getattr(self.target, stage)
        handed = tuple(map(hand_over, args)), {name: hand_over(value) for name, value in kwargs.items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                result = function(*handed[0], **handed[1])
        except NotImplementedError:
            hypothesis.reject()
        except Exception as error:
            call.error = error
            cause = cause_of(error)
            if cause in self.known:
                self.met.add(cause)
                hypothesis.reject()
            raise ImplementationRaised(error, cause) from error
        call.result = result
        return result

    def expect_refusal(self, stage: str, *args: Any, mentions: tuple[object, ...] = (), **kwargs: Any) -> None:
        """Require that the call raises a `ValueError` whose message contains `mentions` (an index, a value)."""
        __tracebackhide__ = True
        wanted = "a ValueError" + (f" whose message contains {' and '.join(map(str, mentions))}" if mentions else "")
        try:
            result = self.raw(stage, *args, **kwargs)
        except ImplementationRaised as raised:
            error = raised.error
            missing = [thing for thing in mentions if str(thing) not in str(error)]
            if not isinstance(error, ValueError) or missing:
                came = f"{type(error).__name__}: {error}"
                raise Mismatch(expected=wanted, came=came, kind="refusal") from None
        else:
            raise Mismatch(expected=wanted, came=f"no error, but {spell_out(plain(result))}", kind="refusal")


class ImplementationRaised(Exception):
    """The implementation raised an exception. `cause` is equal for exceptions that come from the same place."""

    def __init__(self, error: Exception, cause: Hashable) -> None:
        super().__init__(str(error))
        self.error, self.cause = error, cause


def cause_of(error: Exception) -> Hashable:
    """Return what identifies an exception: its type, and where the implementation was entered and where it ended."""
    frames = traceback.extract_tb(error.__traceback__)[1:]  # the first is our own call
    places = [(frame.filename, frame.lineno) for frame in frames]
    return (type(error).__name__, *(places[:1] + places[-1:] if places else [str(error)]))


def load(name: str, *, shape: str = "") -> Subject:
    """Load an implementation by name: `package.module`, `package.module:object` or `package.module.object`.

    Args:
        shape: what the named object is, if it does not offer functions of the contract itself (`shapes.SHAPES`).

    Raises:
        ImplementationError: the name cannot be imported, or what it names offers no function of the contract.
    """
    module, _, attribute = name.partition(":")
    if module.endswith(".py") or "/" in module or not all(part.isidentifier() for part in module.split(".")):
        raise ImplementationError(
            f"{name!r} is not a module name: write package.module or package.module:object, with dots and no .py"
        )
    if os.getcwd() not in sys.path:  # pytest, unlike python -m pytest, leaves the working directory out
        sys.path.append(os.getcwd())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the module's own, which are no business of the test session
            known = module in sys.modules
            target: object = importlib.import_module(module)
            if not known:  # files that the module left open are closed here, where nobody is blamed for them
                gc.collect()
    except ModuleNotFoundError as error:
        parent, _, last = module.rpartition(".")
        missing = error.name or ""
        if missing == module and parent and not attribute:
            try:
                target = getattr(importlib.import_module(parent), last)
            except (ImportError, AttributeError):
                pass
            else:
                return _offering(target, name=name, module=parent, attribute=last, shape=shape)
        if module == missing or module.startswith(missing + "."):
            raise ImplementationError(
                f"no module named {missing!r}: run from the folder that holds it ({os.getcwd()} is searched), "
                f"install it, or add its folder to PYTHONPATH"
            ) from error
        raise ImplementationError(f"{module} needs {missing!r}, which is not installed: pip install it") from error
    except SystemExit as error:
        raise ImplementationError(
            f"importing {module} ended the program (exit code {error.code}): it is a script. Put its functions under "
            f"`if __name__ == '__main__'`, or check the whole script: touchstone audit {module.replace('.', '/')}.py"
        ) from error
    except Exception as error:
        raise ImplementationError(
            f"importing {module} raised {type(error).__name__}: {error}; try python -c 'import {module}'"
        ) from error
    for part in attribute.split(".") if attribute else ():
        if not hasattr(target, part):
            raise ImplementationError(f"{module} has no attribute {attribute!r}: it has {_public(target)}")
        target = getattr(target, part)
    return _offering(target, name=name, module=module, attribute=attribute, shape=shape)


def _offering(target: object, *, name: str, module: str, attribute: str, shape: str) -> Subject:
    try:
        if shape:
            target = shaped_as(target, shape)
            named = f"{module}.{attribute}" if attribute else module
            module = f"import {module}; from touchstone.properties.shapes import shaped_as"
            attribute = f"shaped_as({named}, {shape!r})"
        subject = Subject(target, name=name, module=module, attribute=attribute)
    except (DomainError, ShapeError) as error:
        raise ImplementationError(str(error)) from None
    if len(subject.missing) == len(NAMES):
        if subject.domain.unusable:
            raise ImplementationError("; ".join(f"{each} {why}" for each, why in subject.domain.unusable.items()))
        raise ImplementationError(
            f"{subject.name} offers no function of the contract ({', '.join(NAMES[:8])}, ...; see docs/contract.md), "
            f"only {_public(subject.target)}" + "".join(f"; {pointer}" for pointer in pointers(target))
        )
    return subject


def _public(target: object) -> str:
    names = [name for name in dir(target) if not name.startswith("_")]
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "nothing public"


def pointers(target: object) -> list[str]:
    """Return a sentence for each public name that is nearly a function of the contract, or usual for the same work."""
    found = []
    for name in dir(target):
        if name.startswith("_") or name in NAMES or not callable(getattr(target, name, None)):
            continue
        if name in USUAL_NAMES:
            found.append(f"`{name}` does the work of {USUAL_NAMES[name]}: offer its inner part under that name")
        elif close := difflib.get_close_matches(name, NAMES, n=1, cutoff=0.85):
            found.append(f"`{name}` is nearly {close[0]}: is it the same function?")
    return found
