"""The simulator is not blind: it notices every fault that is put into the minds on purpose."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from simulation.faults import FAULTS, ROOT, SEEDS_EACH, Fault, notices


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_a_fault_replaces_stands_once_in_the_source(fault: Fault) -> None:
    source = (ROOT / "cyclone" / fault.file).read_text(encoding="utf-8")

    assert source.count(fault.right) == 1


def test_every_fault_is_noticed() -> None:
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as processes:
        seeds = processes.map(lambda fault: notices(fault, fault.first, SEEDS_EACH), FAULTS)

        unnoticed = [fault.name for fault, seed in zip(FAULTS, seeds, strict=True) if seed is None]

    assert unnoticed == []
