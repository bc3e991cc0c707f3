"""For all tests: shapes in signatures are checked at run time, one thread, and tiny checkpoints to build on."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that asks a hub is a mistake: it should fail at once
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while waiting slow a busy machine
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from jaxtyping import install_import_hook

CHECKED = ("rushes.similarity", "rushes.losses", "rushes.layers", "rushes.methods")
install_import_hook(CHECKED, "beartype.beartype")  # before anything imports them

import pytest
import torch

from rushes.backbones.clip import Clip
from tests import tiny

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_clip() -> Clip:
    """A CLIP of 61 thousand parameters, random and the same every time. Shared: do not train it."""
    return tiny.tiny_clip()


@pytest.fixture(scope="session")
def tiny_siglip() -> Clip:
    """A SigLIP of 52 thousand parameters. Shared: do not train it."""
    return tiny.tiny_siglip()
