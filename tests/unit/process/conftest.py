import sys
from pathlib import Path

import pytest

# Workers get this path from the test, so that they find the tasks.
sys.path.insert(0, str(Path(__file__).parent))

from kindergarten import Kindergarten


@pytest.fixture
def garden():
    garden = Kindergarten()
    yield garden
    garden.close()


@pytest.fixture
def cramped_garden():
    garden = Kindergarten("cramped_reaper")
    yield garden
    garden.close()
