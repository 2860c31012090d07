"""Stories with every decision in them. `--rewrite` writes them anew; the difference is reviewed like code."""

from __future__ import annotations

from pathlib import Path

import pytest
from transcript_stage import replay

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("file", TRANSCRIPTS, ids=lambda file: file.stem)
def test_the_minds_decide_what_the_transcript_tells(file: Path, pytestconfig: pytest.Config) -> None:
    told = file.read_text(encoding="utf-8")

    decided = replay(told)

    if pytestconfig.getoption("--rewrite"):
        file.write_text(decided, encoding="utf-8")
    else:
        assert decided == told
