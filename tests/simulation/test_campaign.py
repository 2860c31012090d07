"""Whole clusters through a storm and a calm; see `cluster.py`. More seeds: `python tests/simulation/cluster.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from simulation.cluster import FAULTS, run

from cyclone.errors import RuleBroken

SEEDS = range(150)


@pytest.fixture(scope="module")
def campaign() -> tuple[list[str], Counter[str]]:
    """What failed, and how often each fault occurred."""
    failed: list[str] = []
    sometimes: Counter[str] = Counter()
    for seed in SEEDS:
        try:
            sometimes += run(seed).sometimes
        except (AssertionError, LookupError, AttributeError, TypeError, ValueError, RuleBroken) as error:
            failed.append(f"seed {seed}: {type(error).__name__}: {error}")
    return failed, sometimes


@pytest.mark.xdist_group("campaign")
def test_every_accepted_task_reaches_one_end_whatever_goes_wrong(
    campaign: tuple[list[str], Counter[str]],
) -> None:
    failed, _ = campaign

    assert failed == []


@pytest.mark.xdist_group("campaign")
def test_everything_that_can_go_wrong_has_gone_wrong(campaign: tuple[list[str], Counter[str]]) -> None:
    _, sometimes = campaign

    assert [fault for fault in FAULTS if not sometimes[fault]] == []


def test_a_seed_is_the_same_history_in_every_process() -> None:
    told = [_traces(hash_seed) for hash_seed in ("1", "2")]

    assert told[0].count("trace") == 3
    assert told[0] == told[1]


def _traces(hash_seed: str) -> str:
    simulator = Path(__file__).with_name("cluster.py")
    root = str(simulator.parents[2])
    return subprocess.run(
        [sys.executable, simulator, "--seeds", "3", "--traces"],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
