"""Finds the folder that holds a hub repository: under a mirror, or downloaded into the hub's cache.

Everything is then read from that folder, so that a mirror and the hub go one way, and an offline run reads the pinned
revision or nothing. (`datasets.load_dataset` by id takes whatever revision is cached when the hub does not answer:
datasets 5.2, `CachedDatasetModuleFactory`.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from reference.sources.source import SourceError

Kind = Literal["dataset", "model"]
NOWHERE = "none"
"""The revision of what is on no hub, only in a mirror or in a folder of one's own."""


def snapshot(
    repository: str,
    *,
    kind: Kind,
    revision: str,
    mirror: Path | None,
    patterns: list[str],
    ignore: list[str] | None = None,
) -> Path:
    """The folder of a repository at a revision; the files that match `patterns` and not `ignore` are there.

    Raises:
        SourceError: the mirror has no such folder, the revision is `NOWHERE` and there is no mirror, the hub does not
            answer and the cache has no such revision, no such repository or revision, no permission.
    """
    if mirror is not None:
        folder = mirror / f"{kind}s" / repository
        if not folder.is_dir():
            raise SourceError(f"the mirror has no {kind} {repository}: there is no folder {folder}")
        return folder
    if revision == NOWHERE:
        raise SourceError(f"{kind} {repository} is on no hub. {REMEDY[kind]}")
    what = f"{kind} {repository} at revision {revision}"
    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, repo_type=kind, revision=revision, allow_patterns=patterns, ignore_patterns=ignore
            )
        )
    except GatedRepoError as error:
        raise SourceError(f"{what} is gated: ask for access on its page, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise SourceError(
            f"the hub has no {kind} {repository}, or it is private: check the id, or log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise SourceError(f"{kind} {repository} has no revision {revision}") from error
    except HFValidationError as error:
        raise SourceError(f"{repository!r} is no hub id (ORG/NAME): {error}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise SourceError(
            f"{_silence()} and {what} is not in the cache {huggingface_hub.constants.HF_HUB_CACHE}. {REMEDY[kind]}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise SourceError(f"{what} could not be downloaded: {str(error).splitlines()[0]}. {REMEDY[kind]}") from error


REMEDY: dict[Kind, str] = {
    "dataset": "Give a folder of snapshots with --mirror DIR (DIR/datasets/ORG/NAME), "
    "or the data itself with --dataset TASK=PATH",
    "model": "Give a folder of snapshots with --mirror DIR (DIR/models/ORG/NAME), "
    "or the checkpoint itself with --checkpoint TASK=PATH",
}


def _silence() -> str:
    if huggingface_hub.constants.is_offline_mode():
        return "the hub may not be asked (HF_HUB_OFFLINE is set)"
    return f"the hub does not answer ({huggingface_hub.constants.ENDPOINT})"
