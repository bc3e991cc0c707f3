"""Every registered method keeps every law, in its default configuration, its presets and with each switch turned."""

from __future__ import annotations

import pytest

from rushes import registry
from rushes.methods.base import Method
from rushes.train.cases import Broken, Case, cases
from rushes.train.laws import LAWS, check
from rushes.train.pair import compared, learnt_by_two

NAMES = registry.names("methods")
DIM, SEEDS = 64, (0, 1)


def found(name: str) -> list[Case]:
    return cases(registry.find("methods", name, Method), DIM, SEEDS)


def test_there_are_methods():
    assert {"meanpool", "wti"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_keeps_the_laws(name):
    verdicts = check(name, dim=DIM, seeds=SEEDS, laws=LAWS)
    assert len(verdicts) == len(LAWS) + 1
    broken = [f"{verdict.law}: {verdict.detail}" for verdict in verdicts if not verdict.kept]
    assert broken == []


def test_two_processes_learn_as_one():
    """One pair of processes for all methods, since it takes seconds to start; and a difference would be seen."""
    learnt = learnt_by_two(NAMES, DIM, SEEDS, patience=150)
    apart = {}
    for name in NAMES:
        try:
            compared(found(name), learnt[name])
        except Broken as error:
            apart[name] = str(error)
    assert apart == {}
    shifted = [[{part: weight + 1e-3 for part, weight in rank.items()} for rank in case] for case in learnt["wti"]]
    with pytest.raises(Broken, match="from a single process"):
        compared(found("wti"), shifted)
