"""Probes of tokenizer and model: ids, special ids, padding, rows of one batch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from touchstone.auditing.finding import Example, Finding, NotChecked, fail, passed, warn
from touchstone.auditing.probe import probe
from touchstone.auditing.reading.pairs import outputs_of, place_of, rows_of_split, text_columns, tokenizing
from touchstone.auditing.subject import Batch, Row, Split, Subject, ints

GROUP = "tokenizer and model"
ROWS = 64
PADDING = 32


def _splits(subject: Subject) -> list[Split]:
    found = [split for split in (subject.train, subject.evaluation) if split is not None]
    if not found:
        raise NotChecked("there is no data")
    return found


def _rows(subject: Subject, split: Split) -> list[Row]:
    """Return rows with token ids as the collator receives them."""

    def make() -> list[Row]:
        rows = rows_of_split(split, ROWS)
        if not rows or "input_ids" not in rows[0]:
            raise NotChecked(f"rows of the {split.name} data have no input_ids: they are tokenized in the collator")
        return rows

    return subject.once(f"rows of {split.name}", make)


def _ids(subject: Subject, split: Split) -> list[list[int]]:
    """Return the token ids of some rows, from the rows or from batches, without padding."""
    try:
        rows = _rows(subject, split)
        masks = [row.get("attention_mask") for row in rows]
        return [_kept(ints(row["input_ids"]), mask) for row, mask in zip(rows, masks, strict=True)]
    except NotChecked:
        found = []
        for batch in split.batches(4):
            if "input_ids" not in batch:
                raise NotChecked("batches have no input_ids") from None
            masks_ = batch.get("attention_mask")
            for index in range(len(batch["input_ids"])):
                found.append(_kept(ints(batch["input_ids"][index]), None if masks_ is None else masks_[index]))
        return found


def _kept(ids: list[int], mask: Any) -> list[int]:
    if mask is None or getattr(mask, "ndim", 1) != 1 or len(mask) != len(ids):
        return ids
    return [each for each, seen in zip(ids, ints(mask), strict=True) if seen]


def _table(model: Any) -> int | None:
    """Return the number of rows of the table of input embeddings."""
    get = getattr(model, "get_input_embeddings", None)
    try:
        table = get() if callable(get) else None
    except (NotImplementedError, AttributeError):
        return None
    size = getattr(table, "num_embeddings", None)
    weight = getattr(table, "weight", None)
    if size is None and weight is not None and getattr(weight, "ndim", 0) == 2:
        size = len(weight)
    return None if size is None else int(size)


@probe(
    "ids-in-table",
    group=GROUP,
    says="Every token id has a row in the model's table of embeddings.",
    budget="fast",
)
def ids_in_table(subject: Subject) -> Finding:
    """Compare the largest token id, and the tokenizer's size, with the table of embeddings."""
    size = _table(subject.need("model"))
    if size is None:
        raise NotChecked("the model's table of embeddings is not known (get_input_embeddings)")
    largest, beyond, seen = -1, Counter[int](), 0
    for split in _splits(subject):
        for ids in _ids(subject, split):
            seen += len(ids)
            largest = max(largest, max(ids, default=-1))
            beyond.update(each for each in ids if not 0 <= each < size)
    tokenizer = subject.tokenizer
    if beyond:
        names = ", ".join(
            f"{subject.token_texts([each])[0]} ({each})" if tokenizer is not None else str(each)
            for each, _ in beyond.most_common(4)
        )
        return fail(
            f"{sum(beyond.values())} of {seen} token ids have no row in the table of {size} embeddings: {names}",
            cause="the tokenizer has tokens that the model does not know, such as added ones; the first batch with one "
            "ends in an IndexError: call model.resize_token_embeddings(len(tokenizer)) after tokens are added",
            measured=largest,
            expected=f"below {size}",
        )
    total = len(tokenizer) if tokenizer is not None and hasattr(tokenizer, "__len__") else None
    if total is not None and total > size:
        return warn(
            f"the tokenizer has {total} tokens, and the model's table {size} embeddings",
            cause="rows that were looked at hold none of the tokens in between; the first batch with one ends in an "
            "IndexError: call model.resize_token_embeddings(len(tokenizer))",
            measured=total,
            expected=size,
        )
    return passed(
        f"the largest of {seen} ids is {largest}, and the table has {size} rows", measured=largest, expected=size
    )


@probe(
    "positions-in-table",
    group=GROUP,
    says="No row is longer than the model's table of positions.",
    budget="fast",
)
def positions_in_table(subject: Subject) -> Finding:
    """Compare the longest row with the tables of positions."""
    from torch import nn

    model = subject.need("model")
    tables = {
        name: module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
        and any(part in name.rsplit(".", 1)[-1] for part in ("position", "wpe"))
        and "relative" not in name
        and "decoder" not in name
        and module.num_embeddings > 4
    }
    longest = max((len(ids) for split in _splits(subject) for ids in _ids(subject, split)), default=0)
    if not tables:
        return passed(f"the model has no table of positions; the longest row has {longest} tokens")
    name, size = min(tables.items(), key=lambda each: each[1])
    if longest > size:
        return fail(
            f"a row has {longest} tokens, and the model's table of positions has {size} rows",
            cause=f"the model cannot run on such a row ({name}): truncate to {size} tokens "
            f"(truncation=True, max_length={size}), or split long texts",
            measured=longest,
            expected=size,
        )
    return passed(f"the longest row has {longest} tokens, and the table of positions {size} rows", measured=longest)


@probe(
    "unknown-tokens",
    group=GROUP,
    says="Few tokens are unknown to the tokenizer.",
    budget="fast",
)
def unknown_tokens(subject: Subject) -> Finding:
    """Count unknown tokens."""
    tokenizer = subject.need("tokenizer")
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None:
        return passed("the tokenizer has no unknown token")
    others = [
        getattr(tokenizer, name, None) for name in ("eos_token_id", "bos_token_id", "pad_token_id", "cls_token_id")
    ]
    if unknown in others:
        return passed("the unknown token is also another special token; a byte-level vocabulary knows every text")
    special = subject.special_ids - {unknown}
    count = total = 0
    shown: list[int] = []
    for split in _splits(subject):
        for ids in _ids(subject, split):
            real = [each for each in ids if each not in special]
            total += len(real)
            count += real.count(unknown)
            if unknown in real and not shown:
                shown = ids[:24]
    share = count / max(total, 1)
    text = f"{count} of {total} tokens ({share:.1%}) are unknown"
    parts: dict[str, Any] = {"measured": round(share, 4), "expected": 0}
    if shown:
        marked = [place for place, each in enumerate(shown) if each == unknown]
        parts["example"] = Example(("token",), [(each,) for each in subject.token_texts(shown)], marked=marked)
    if share > 0.5:
        return fail(
            text,
            cause="the model sees hardly anything of the texts: the tokenizer is made for another script, another case "
            "or another form of text",
            **parts,
        )
    if share > 0.05:
        return warn(
            text, cause="the vocabulary does not fit the texts: look at case, script and pre-tokenization", **parts
        )
    return passed(text, measured=round(share, 4))


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
    """Encode texts with the tokenizer and with its file, and compare ids."""
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
    """Compare the tokenizer's vocabulary with that of the checkpoint whose embeddings the model holds."""
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
    """Compare the ids of padding, beginning and end among the three."""
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
    count = sum(ids.count(id) for ids in _ids(subject, subject.need("train")))
    return (subject.token_texts([id])[0], id, count) if count else None


def _logits(model: Any, batch: Batch, encoder_decoder: bool) -> Any:
    """Return what the model computes for each token: logits, or start and end logits side by side."""
    import torch

    found = outputs_of(model, batch)
    logits = found.get("logits")
    if logits is None and "start_logits" in found and "end_logits" in found:
        logits = torch.stack([found["start_logits"], found["end_logits"]], dim=-1)
    if logits is None or logits.dim() != 3 or (not encoder_decoder and logits.shape[:2] != batch["input_ids"].shape):
        raise NotChecked("the model returns no logits for each token")
    return logits


def _need_steady(model: Any, batch: Batch, encoder_decoder: bool) -> None:
    """Check that the model computes the same for the same batch.

    Raises:
        NotChecked: it does not, so that nothing can be said of what moves its logits.
    """
    first, second = (_logits(model, batch, encoder_decoder) for _ in range(2))
    if float((first - second).abs().max()) > 1e-4 * (float(first.std()) or 1.0):
        raise NotChecked("the model computes other logits for the same batch: see dropout-off-in-evaluation")


def _two_rows(subject: Subject) -> tuple[Batch, list[list[int]], str]:
    """Return a batch of a short and a longer row, the places of their tokens, and the side of the padding."""

    def make() -> tuple[Batch, list[list[int]], str]:
        import torch

        train = subject.need("train")
        try:
            rows = _rows(subject, train)
        except NotChecked:
            return _two_observed(train)
        short = min(rows, key=lambda row: len(row["input_ids"]))
        # A row that is a little longer is enough, and quick.
        limit = len(short["input_ids"]) + PADDING
        near = [row for row in rows if len(short["input_ids"]) < len(row["input_ids"]) <= limit]
        long = max(near or rows, key=lambda row: len(row["input_ids"]))
        batch = train.batch([short, long])
        if "input_ids" not in batch or len(batch["input_ids"]) != 2:
            raise NotChecked("the collator does not make two rows of two rows")
        return _with_places({key: value for key, value in batch.items() if isinstance(value, torch.Tensor)})

    return subject.once("two rows", make)


def _two_observed(split: Split) -> tuple[Batch, list[list[int]], str]:
    """Return the shortest row of an observed batch, and another row."""
    import torch

    for batch in split.observed:
        ids, mask = batch.get("input_ids"), batch.get("attention_mask")
        if ids is None or len(ids) < 2:
            continue
        short = int(mask.sum(dim=1).argmin()) if mask is not None and mask.dim() == 2 else 0
        rows = [short, 0 if short else 1]
        whole = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}
        return _with_places(
            {key: value[rows] for key, value in whole.items() if value.dim() and len(value) == len(ids)}
        )
    raise NotChecked("no batch of two rows was seen")


def _with_places(batch: Batch) -> tuple[Batch, list[list[int]], str]:
    width = batch["input_ids"].shape[1]
    mask = batch.get("attention_mask")
    places = [list(range(width)) for _ in range(2)]
    if mask is not None and mask.dim() == 2:
        places = [[place for place, seen in enumerate(ints(row)) if seen] for row in mask]
    return batch, places, "left" if places[0] and places[0][0] > 0 else "right"


def _inputs(batch: Batch, encoder_decoder: bool) -> Batch:
    """Return what the model reads. Encoder-decoders need labels or decoder inputs; others compute without them."""
    return {
        key: value
        for key, value in batch.items()
        if encoder_decoder or key not in ("labels", "start_positions", "end_positions", "label")
    }


@probe(
    "padding-moves-no-logit",
    group=GROUP,
    says="The logits of a row's own tokens are the same with and without padding.",
)
def padding_moves_no_logit(subject: Subject) -> Finding:
    """Run the model on a padded row, and on the same row without its padding."""
    batch, places, side = _two_rows(subject)
    model = subject.quiet_model
    both = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    own = places[0]
    width = batch["input_ids"].shape[1]
    pads = width - len(own)
    if not pads:
        if "attention_mask" not in batch:
            raise NotChecked("batches have no attention_mask, so it is not known what is padding")
        raise NotChecked("no row is padded: rows have one length")
    if len({each for place, each in enumerate(ints(batch["input_ids"][0])) if place not in set(own)}) > 1:
        raise NotChecked("the mask hides tokens that are no padding: see mask-marks-padding")
    padded = _logits(model, {key: value[:1] for key, value in _inputs(batch, both).items()}, both)
    alone: Batch = {}
    for key, value in _inputs(batch, both).items():
        cut = value[:1]
        if cut.dim() == 2 and cut.shape[1] == width and not key.startswith(("decoder", "label")):
            cut = cut[:, own]
        alone[key] = cut
    expected = _logits(model, alone, both)
    if not both:
        padded = padded[:, own]
    moved = float((padded - expected).abs().max())
    scale = float(expected.std()) or 1.0
    # The same row in another shape of matrix moves float32 logits by about 1e-6 of their scale, half precision weights
    # included, because the copy computes in float32.
    if moved <= 1e-3 * scale:
        return passed(f"{pads} padding tokens move the logits of {len(own)} tokens by {moved:.1e}", measured=moved)
    _need_steady(model, alone, both)
    message = f"{pads} padding tokens on the {side} move the logits of real tokens by {moved:.3g} ({moved / scale:.0%})"
    if side == "left" and "position_ids" not in batch:
        return warn(
            message,
            cause="the row's tokens get other positions behind padding: pass position_ids that begin at the row's "
            "first token, or pad on the right for training",
            measured=moved,
            expected=0.0,
        )
    return fail(
        message,
        cause="what a row gives depends on how long the other rows of its batch are: the model does not use "
        "attention_mask, or numbers its positions through padding",
        measured=moved,
        expected=0.0,
    )


@probe(
    "rows-independent",
    group=GROUP,
    says="The rows of a batch do not move each other's logits.",
)
def rows_independent(subject: Subject) -> Finding:
    """Change one row of a batch and compare the logits of the other."""
    import torch

    batch, _, _ = _two_rows(subject)
    model = subject.quiet_model
    both = bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
    inputs = _inputs(batch, both)
    ids = inputs["input_ids"]
    other = ids.clone()
    other[1] = torch.where(ids[1] == ids[0], ids[0].roll(1), ids[0])
    if torch.equal(other, ids):
        raise NotChecked("both rows hold one token only")
    before = _logits(model, inputs, both)
    after = _logits(model, {**inputs, "input_ids": other}, both)
    moved = float((before[0] - after[0]).abs().max())
    scale = float(before.std()) or 1.0
    # One batch of one shape: the same kernels give the same bits, but for reductions over the whole batch.
    if moved <= 1e-4 * scale:
        return passed(f"the logits of a row move by {moved:.1e} when the other row changes", measured=moved)
    _need_steady(model, inputs, both)
    return fail(
        f"the logits of a row move by {moved:.3g} when another row of its batch changes",
        cause="the model mixes rows: look for a reshape, a mean or a normalization across the batch"
        + (f" ({place})" if (place := place_of(model)) else ""),
        measured=moved,
        expected=0.0,
    )


@probe(
    "token-types-given",
    group=GROUP,
    says="A model that tells two texts apart by token types receives them.",
    tasks=("question-answering",),
    budget="fast",
)
def token_types_given(subject: Subject) -> Finding:
    """Look for token types in batches of pairs, where tokenizer and model use them."""
    tokenizer, model = subject.need("tokenizer"), subject.need("model")
    kinds = getattr(getattr(model, "config", None), "type_vocab_size", 0) or 0
    if kinds < 2 or "token_type_ids" not in getattr(tokenizer, "model_input_names", ()):
        return passed("the model has no token types")
    batch = subject.need("train").batch()
    if "token_type_ids" in batch:
        return passed("batches have token types")
    return warn(
        "batches have no token types, so question and context look alike to the model",
        cause="the model was trained with token types, and takes all tokens for the first text without them: keep "
        "token_type_ids through map and collator",
    )
