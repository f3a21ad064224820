"""Checkpoints of the Hugging Face hub, of a mirror of it, or in the user's own folder.

Only safetensors are read, and remote code is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from huggingface_hub.errors import StrictDataclassError
from pydantic import Field
from safetensors import SafetensorError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from touchstone.fields import FrozenModel
from touchstone.sources.hub import NOWHERE, snapshot
from touchstone.sources.source import Access, SourceError

if TYPE_CHECKING:  # importing it takes seconds, and only callers that make a model need it
    from transformers import PreTrainedModel

DESCRIPTION = ["*.json", "*.txt", "*.model", "*.spm"]
WEIGHTS = "*.safetensors"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


class HubCheckpoint(FrozenModel):
    """A model and its tokenizer at a pinned revision."""

    source: Literal["hub"] = "hub"
    id: str = Field(min_length=1, description="ORG/NAME")
    revision: str = Field(min_length=1, description="commit, tag, or reference such as refs/pr/3")
    pretrained: bool = Field(
        default=True, description="false: only the architecture and the tokenizer, with random weights"
    )
    config: dict[str, Any] = Field(
        default={}, description="entries that override the model's config; with model_type, they are the whole config"
    )

    @classmethod
    def of_folder(cls, path: Path) -> HubCheckpoint:
        """Return settings for a folder. The checkpoint is pretrained if the folder has weights."""
        return cls(id=path.name, revision=NOWHERE, pretrained=_has(path, WEIGHTS) or _has(path, *PICKLED))


def hub_tokenizer(checkpoint: HubCheckpoint, *, access: Access) -> PreTrainedTokenizerBase:
    """Return the checkpoint's tokenizer: a fast one, or a slow one (without `word_ids`) if it has no fast one.

    Raises:
        SourceError: see `snapshot`; also if the folder has no tokenizer or the tokenizer needs a missing package.
    """
    folder = _folder(checkpoint, access)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except ImportError as error:
        raise SourceError(
            f"the tokenizer in {folder} needs a package that is not installed: {_first_line(error).split('. ')[0]}; "
            f"`pip install sentencepiece sacremoses` is enough for Marian's and most others"
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"the tokenizer in {folder} is missing or cannot be read: {_first_line(error)}") from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


def hub_config(checkpoint: HubCheckpoint, *, access: Access, **overrides: Any) -> PreTrainedConfig:
    """Return the checkpoint's config with the declared overrides.

    Raises:
        SourceError: see `snapshot`; also if the config is missing, has no entry of that name or needs remote code.
    """
    return _config(_folder(checkpoint, access), checkpoint.config | overrides)


def hub_model(checkpoint: HubCheckpoint, auto_class: Any, *, access: Access, **config: Any) -> PreTrainedModel:
    """Return an `auto_class` in float32, with the checkpoint's weights or, if not declared pretrained, random ones.

    Raises:
        SourceError: see `snapshot`; also if the config is missing, has no entry of that name or needs remote code, a
            pretrained checkpoint has no safetensors, or the weights belong to another architecture.
    """
    folder = _folder(checkpoint, access)
    settings = _config(folder, checkpoint.config | config)
    model: PreTrainedModel
    try:
        if not checkpoint.pretrained:
            return auto_class.from_config(settings, dtype=torch.float32, trust_remote_code=False)  # type: ignore[no-any-return]
        _require_weights(folder)
        model, loading = auto_class.from_pretrained(
            folder,
            config=settings,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise SourceError(f"{folder} cannot be loaded as {auto_class.__name__}: {_first_line(error)}") from error
    body = {name for name in model.state_dict() if name.startswith(f"{model.base_model_prefix}.")}
    if body and body <= set(loading["missing_keys"]):
        raise SourceError(
            f"the weights in {folder} belong to another architecture: their names are not those of "
            f"{type(model).__name__}"
        )
    return model


def _folder(checkpoint: HubCheckpoint, access: Access) -> Path:
    if access.checkpoint is not None:
        if not access.checkpoint.is_dir():
            raise SourceError(f"the checkpoint folder {access.checkpoint} does not exist: check its path")
        return access.checkpoint
    return snapshot(
        checkpoint.id,
        kind="model",
        revision=checkpoint.revision,
        mirror=access.mirror,
        patterns=[*DESCRIPTION, *([WEIGHTS] if checkpoint.pretrained else [])],
        ignore=["*/*"],  # subfolders hold exports to other runtimes
    )


def _config(folder: Path, overrides: dict[str, Any]) -> PreTrainedConfig:
    if "model_type" in overrides:
        return _config_of_type(overrides)
    try:
        config, unknown = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True, return_unused_kwargs=True, **overrides
        )
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        raise SourceError(f"the model config in {folder} is missing or cannot be read: {_first_line(error)}") from error
    if unknown:
        raise SourceError(
            f"the config of {folder} ({type(config).__name__}) has no entry {', '.join(map(repr, unknown))}"
        )
    assert isinstance(config, PreTrainedConfig)
    return config


def _config_of_type(entries: dict[str, Any]) -> PreTrainedConfig:
    """Return a config made of the entries alone, for a repository that has a tokenizer but no model."""
    try:
        default = AutoConfig.for_model(entries["model_type"])
        if unknown := [name for name in entries if not hasattr(default, name)]:
            raise SourceError(f"a config of model_type {entries['model_type']!r} has no entry {unknown[0]!r}")
        return AutoConfig.for_model(**entries)
    except (ValueError, KeyError, StrictDataclassError) as error:
        raise SourceError(f"the checkpoint's config entries do not make a config: {_first_line(error)}") from error


def _require_weights(folder: Path) -> None:
    if _has(folder, WEIGHTS):
        return
    if _has(folder, *PICKLED):
        raise SourceError(
            f"{folder} has weights as pickle only, which can run code when read: convert them to model.safetensors, "
            f"or pin a revision that has that file"
        )
    raise SourceError(
        f"{folder} has no weights (*.safetensors), but the checkpoint is declared pretrained. If the repository has "
        f"pickled weights (*.bin), which are not downloaded or read, convert them to model.safetensors or pin a "
        f"revision that has that file; otherwise add weights, or set `pretrained = false` to start from random ones"
    )


def _has(folder: Path, *patterns: str) -> bool:
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
