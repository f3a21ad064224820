"""Every hub id and revision in a spec exists and has the files that are read. These tests need the network:

TOUCHSTONE_NETWORK=1 pytest tests/sources/test_hub_live.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from huggingface_hub import HfApi

from touchstone.sources import HubCheckpoint, HubData
from touchstone.sources.hub import BUILDERS, NOWHERE
from touchstone.specs.spec import available_specs, load_spec, profiles, variants

pytestmark = pytest.mark.skipif(
    os.environ.get("TOUCHSTONE_NETWORK") != "1", reason="needs the Hugging Face hub: set TOUCHSTONE_NETWORK=1"
)


def declared() -> Iterator[HubData | HubCheckpoint]:
    for name in available_specs():
        for profile in profiles(name):
            for variant in (None, *variants(name, profile=profile)):
                spec = load_spec(name, profile=profile, variant=variant)
                for part in (spec.data, spec.checkpoint):
                    if isinstance(part, HubData | HubCheckpoint) and part.revision != NOWHERE:
                        yield part


DATA = sorted({place for part in declared() if isinstance(part, HubData) for place in part.repositories.values()})
CHECKPOINTS = sorted(
    {(part.id, part.revision, part.pretrained) for part in declared() if isinstance(part, HubCheckpoint)}
)


@pytest.mark.parametrize(("id", "revision"), DATA)
def test_a_data_set_has_files_that_can_be_read_without_a_script(id: str, revision: str) -> None:
    files = [file.rfilename for file in HfApi().dataset_info(id, revision=revision).siblings or ()]

    assert any(file.endswith(suffix) for file in files for suffix in BUILDERS), files


@pytest.mark.parametrize(("id", "revision", "pretrained"), CHECKPOINTS)
def test_a_pretrained_checkpoint_has_safetensors(id: str, revision: str, pretrained: bool) -> None:
    files = [file.rfilename for file in HfApi().model_info(id, revision=revision).siblings or ()]

    assert "config.json" in files
    assert not pretrained or any(file.endswith(".safetensors") for file in files), files
