"""A master whose task generator finds it through a relay of the drill. All else is `cyclone.daemons.master`.

A generator is told where its master listens, and nobody may tell it otherwise; so the drill does it from within.
"""

from __future__ import annotations

import os
import sys

from cyclone.daemons import master
from cyclone.daemons.generator_process import GeneratorProcess

#: In the environment of the master: the address of the relay.
VARIABLE = "CYCLONE_DRILL_RELAY"


class DetouredGenerator(GeneratorProcess):
    """The process of a generator that goes to the relay."""

    def go(self, _address: str) -> None:
        super().go(os.environ[VARIABLE])


if __name__ == "__main__":
    master.GeneratorProcess = DetouredGenerator  # type: ignore[attr-defined]
    sys.exit(master.main())
