"""A simulated Lustre: `lfs` and `lctl` as Lustre's own print them, over an ordinary directory tree.

How a call runs: `entry` (program name -> command) -> one of the command rooms (`targets`, `getstripe`,
`setstripe`, `migrate`, `find`, `names`, `hsm`, `lctl`) -> `files` (what a file's layout is) and `allocation`
(which OST takes an object) -> `state` (the database of one simulation). `recovery` puts right what killed
processes leave. `simctl` and its rooms (`install`, `populate`, `audit`) make and judge a simulation.

Rules of this package: standard library only; an `lfs` call starts in milliseconds, so what it does
not need is not imported (`json`, `re`, `argparse`, `dataclasses`, `typing` and `sqlite3` in Python form each
cost as much as the interpreter itself).
"""
