"""`python simlustre/simlustre.py COMMAND …` is `simctl COMMAND …` before there is a SIMROOT/bin/simctl."""

import sys
from pathlib import Path

# The directory of this script comes first otherwise, and this file would hide the package of the same name.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from simlustre.simctl import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
