"""Shapes written in signatures are checked while tests run, in files with postponed annotations too."""

from __future__ import annotations

import sys

import pytest
import torch

from rushes.layers import TokenWeights
from rushes.losses import info_nce
from rushes.methods.meanpool import MeanPool
from rushes.similarity import dot
from rushes.types import Tokens


def test_a_wrong_shape_is_caught_in_every_checked_module():
    with pytest.raises(Exception, match="dim"):
        dot(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(Exception, match="video"):
        info_nce(torch.ones(2, 2), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(Exception, match="token"):
        TokenWeights(4)(torch.ones(2, 3, 4), torch.ones(2, 5, dtype=torch.bool))
    tokens = Tokens(torch.ones(2, 1, 4), torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(Exception, match="positives"):
        MeanPool(4).loss(tokens, tokens, torch.ones(2, 2))


def test_checking_is_for_tests_only():
    import subprocess

    program = (
        "import sys, torch; from rushes.similarity import unit, masked_mean;"
        "masked_mean(torch.ones(2, 3, 4), torch.ones(2, 3).bool());"
        "sys.exit('beartype' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
