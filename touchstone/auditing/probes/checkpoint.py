"""Probes of tokenizer and model: both belong together, as their files and special ids tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.ids import token_ids
from touchstone.auditing.reading.pairs import text_columns, tokenizing
from touchstone.auditing.reading.streams import held
from touchstone.auditing.subject import Subject, ints

GROUP = "tokenizer and model"


def _file_of(name: str, file: str) -> Path | None:
    """Return a file of a checkpoint, from a folder or from the local cache, without the network."""
    if not name:
        return None
    folder = Path(name)
    if folder.is_dir():
        return folder / file if (folder / file).is_file() else None
    try:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, file)
    except Exception:
        return None
    return Path(found) if isinstance(found, str) else None


def _sample_texts(subject: Subject) -> list[str]:
    """Return texts of the data, from the rows that were tokenized."""
    texts: list[str] = []
    if subject.streamed and subject.train is not None:
        subject, _ = held(subject, subject.train)
    for call in tokenizing(subject.maps):
        rows = [dict(call.source[index]) for index in range(min(len(call.source), 50))]
        for column in text_columns(rows):
            texts += [row[column][:500] for row in rows]
        for row in rows:
            for value in row.values():
                if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
                    texts.append(" ".join(value))
                if isinstance(value, Mapping):
                    texts += [each for each in value.values() if isinstance(each, str)]
    if not texts:
        raise NotChecked("the texts that rows were made of are not known: no call of Dataset.map was seen")
    return texts[:200]


@probe(
    "ids-as-in-tokenizer-file",
    group=GROUP,
    says="Token ids are those that the tokenizer's file gives when it is read plainly.",
    budget="fast",
)
def ids_as_in_tokenizer_file(subject: Subject) -> Finding:
    """Encode texts with the tokenizer and with its file, and compare ids.

    Fault: The tokenizer that transformers built gives other ids than the file it was loaded from. The model was
    trained with those of the file.

    Causes: The class of the tokenizer builds its own normalizer or pre-tokenizer instead of that of tokenizer.json
    (transformers#44254, transformers#45488).

    Remedy: Load it plainly: `PreTrainedTokenizerFast(tokenizer_file='tokenizer.json', ...)`, or use the version of
    transformers that wrote the file.

    Warning: The ids differ because the tokenizer was changed after loading, such as by add_prefix_space. Fine if the
    model learns with it from now on.
    """
    tokenizer = subject.need("tokenizer")
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise NotChecked("the tokenizer has no tokenizer.json: it is written in Python")
    name = str(getattr(tokenizer, "name_or_path", "") or "")
    path = _file_of(name, "tokenizer.json")
    if path is None:
        raise NotChecked("the tokenizer was not loaded from a file that is on this machine")
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(path))
    plain.no_padding()
    plain.no_truncation()
    texts = _sample_texts(subject)
    differ = []
    for text in texts:
        ids = ints(tokenizer(text, add_special_tokens=False)["input_ids"])
        expected = list(plain.encode(text, add_special_tokens=False).ids)
        if ids != expected:
            differ.append((text, ids, expected))
    if not differ:
        return passed(f"{len(texts)} texts have the ids of {path.name}", measured=0)
    text, ids, expected = differ[0]
    example = Example(
        ("token", "token by the file"),
        [
            (a, b)
            for a, b in zip(
                subject.token_texts(ids)[:24], [str(plain.id_to_token(each)) for each in expected][:24], strict=False
            )
        ],
        caption=text[:100],
    )
    change = _changed_part(tokenizer, plain)
    cause = f"{change} of the tokenizer is not that of {path}"
    parts: dict[str, Any] = {"measured": len(differ), "expected": 0, "example": example}
    message = f"{len(differ)} of {len(texts)} texts have other ids than by the tokenizer's file"
    if _set_by_user(tokenizer, path) or type(tokenizer).__name__ in ("PreTrainedTokenizerFast", "TokenizersBackend"):
        return warn(
            message,
            cause=f"{cause}: it was changed after loading; the model was trained with that of the file",
            **parts,
        )
    return fail(
        message,
        cause=f"{cause}: the class {type(tokenizer).__name__} builds its own (transformers#44254, transformers#45488); "
        "load it with PreTrainedTokenizerFast(tokenizer_file=...), or with the version of transformers that wrote it",
        **parts,
    )


def _changed_part(tokenizer: Any, plain: Any) -> str:
    now, then = json.loads(tokenizer.backend_tokenizer.to_str()), json.loads(plain.to_str())
    parts = [
        part for part in ("normalizer", "pre_tokenizer", "model", "added_tokens") if now.get(part) != then.get(part)
    ]
    return "the " + ", the ".join(parts).replace("_", "-") if parts else "something"


def _set_by_user(tokenizer: Any, path: Path) -> bool:
    """Say whether options were given at loading that the tokenizer's configuration does not hold."""
    config = path.parent / "tokenizer_config.json"
    stored = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    given = getattr(tokenizer, "init_kwargs", {})
    options = ("add_prefix_space", "do_lower_case", "strip_accents", "trim_offsets", "legacy", "split_special_tokens")
    return any(given.get(option) != stored.get(option, given.get(option)) for option in options) or any(
        option in given and option not in stored for option in ("add_prefix_space", "do_lower_case", "legacy")
    )


@probe(
    "tokenizer-of-the-model",
    group=GROUP,
    says="The tokenizer is the one that the loaded embeddings belong to.",
    budget="fast",
)
def tokenizer_of_the_model(subject: Subject) -> Finding:
    """Compare the tokenizer's vocabulary with that of the checkpoint whose embeddings the model holds.

    Fault: The model holds the embeddings of one checkpoint, and the tokenizer is that of another. Each id picks the
    embedding of a different token.

    Causes: Two names are used for tokenizer and model, such as a cased and an uncased one.

    Remedy: Load both by one name: `AutoTokenizer.from_pretrained(name)` and `from_pretrained(name)` of the model.
    """
    tokenizer = subject.need("tokenizer")
    model = subject.need("model")
    name = str(getattr(getattr(model, "config", None), "_name_or_path", "") or "")
    own = str(getattr(tokenizer, "name_or_path", "") or "")
    if name and name == own:
        return passed(f"tokenizer and model are both loaded from {name}")
    path = _file_of(name, "tokenizer.json")
    if path is None:
        raise NotChecked("the checkpoint that the model was loaded from has no tokenizer.json on this machine")
    theirs: dict[str, int] = json.loads(path.read_text(encoding="utf-8")).get("model", {}).get("vocab", {})
    if not isinstance(theirs, dict) or not hasattr(tokenizer, "get_vocab"):
        raise NotChecked("the two vocabularies cannot be compared")
    ours = tokenizer.get_vocab()
    same = sum(ours.get(token) == id for token, id in theirs.items())
    share = same / max(len(theirs), 1)
    if share > 0.98:
        return passed(
            f"{share:.0%} of the tokens of {name} have the same ids in {own or 'the tokenizer'}", measured=share
        )
    if not _holds_embeddings(model, name):
        raise NotChecked(
            f"whether the model holds the embeddings of {name} is not known; it may be trained from scratch"
        )
    texts = [token for token, id in list(theirs.items())[:5000] if ours.get(token) not in (None, id)][:8]
    return fail(
        f"the model has the embeddings of {name}, and {share:.0%} of its tokens have the same ids in the tokenizer",
        cause=f"the tokenizer is that of {own or 'another model'}, so each id picks the embedding of another token: "
        f"load the tokenizer from {name}",
        measured=round(share, 4),
        expected=1.0,
        example=Example(
            ("token", "id of the model", "id of the tokenizer"), [(each, theirs[each], ours[each]) for each in texts]
        ),
    )


def _holds_embeddings(model: Any, name: str) -> bool:
    """Say whether the first rows of the model's embeddings are those of a checkpoint, give or take a few steps."""
    import torch

    path = _file_of(name, "model.safetensors")
    if path is None:
        return False
    from safetensors import safe_open

    weight = model.get_input_embeddings().weight.detach().float().cpu()
    with safe_open(str(path), framework="pt") as stored:
        for key in list(stored.keys()):
            part = stored.get_slice(key)
            shape = part.get_shape()
            fits = len(shape) == 2 and shape[1] == weight.shape[1] and min(shape[0], len(weight)) >= 8
            if fits:
                count = min(shape[0], len(weight), 2000)
                theirs, ours = part[:count].float().flatten(), weight[:count].flatten()
                # Independent vectors of 8 x 32 numbers or more have a cosine within 0.35 at 1e-6; some hundred steps
                # of training leave more than 0.5.
                if float(torch.cosine_similarity(theirs, ours, dim=0)) > 0.5:
                    return True
    return False


@probe(
    "special-ids-agree",
    group=GROUP,
    says="Tokenizer, configuration and generation configuration agree on the ids of special tokens.",
    budget="fast",
)
def special_ids_agree(subject: Subject) -> Finding:
    """Compare the ids of padding, beginning and end among the three.

    Fault: The model takes an ordinary token for padding. The embedding of that token gets no gradient and never
    trains.

    Causes: config.pad_token_id is the default of the architecture, and the tokenizer was trained anew with other ids.

    Remedy: Make the model from the tokenizer's ids: `config.pad_token_id = tokenizer.pad_token_id` before the model is
    made.

    Warning: Tokenizer, config and generation_config name different ids for padding, beginning or end. Recent Trainers
    align them; elsewhere generation pads, begins or stops at another token than the data.
    """
    tokenizer = subject.need("tokenizer")
    model = subject.need("model")
    config, generation = getattr(model, "config", None), getattr(model, "generation_config", None)
    if config is None:
        raise NotChecked("the model has no configuration")
    notes = []
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        own = getattr(tokenizer, name, None)
        for part, label in ((config, "config"), (generation, "generation_config")):
            value = getattr(part, name, None)
            values = value if isinstance(value, (list, tuple)) else [value]
            if own is not None and value is not None and own not in values:
                notes.append(f"{name} is {own} in the tokenizer and {value} in {label}")
    dead = _dead_embedding(subject, model)
    if dead is not None:
        token, id, count = dead
        return fail(
            f"the model takes {token!r} (id {id}) for padding, and {count} real tokens are {token!r}",
            cause=f"the embedding of id {id} has no gradient (padding_idx), because config.pad_token_id is {id}, while "
            f"the tokenizer pads with id {getattr(tokenizer, 'pad_token_id', None)}: give both the same padding token",
            measured=id,
            expected=getattr(tokenizer, "pad_token_id", None),
        )
    if not notes:
        return passed("ids of padding, beginning and end agree, where they are set")
    return warn(
        "; ".join(notes),
        cause="recent Trainers align them when they begin to train; elsewhere the model pads, begins or stops at "
        "another token than the data: set the ids of config and generation_config to those of the tokenizer",
        measured=len(notes),
        expected=0,
    )


def _dead_embedding(subject: Subject, model: Any) -> tuple[str, int, int] | None:
    """Return the token whose embedding never trains although it is text, with its id and its number."""
    get = getattr(model, "get_input_embeddings", None)
    try:
        id = getattr(get() if callable(get) else None, "padding_idx", None)
    except (NotImplementedError, AttributeError):
        return None
    pad = getattr(subject.tokenizer, "pad_token_id", None)
    if id is None or id < 0 or pad is None or id == pad or id in subject.special_ids:
        return None
    count = sum(ids.count(id) for ids in token_ids(subject, subject.need("train")))
    return (subject.token_texts([id])[0], id, count) if count else None
