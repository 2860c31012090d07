#!/bin/sh
# Measures everything again and rewrites the tables of RESULTS.md; or only the ones that are named.
#
#     benchmarks/all.sh [throughput] [million] [utilisation] [controllers] [database] [audit] [recovery]
#                       [malformed] [comparison] [soak]
#
# The host should have nothing else to do. PYTHON: an interpreter that has Cyclone.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

is_wanted() {
    [ -z "$wanted" ] && return
    case " $wanted " in *" $1 "*) ;; *) return 1 ;; esac
}

measure() {
    is_wanted "$1" || return 0
    # One that fails does not keep the others from being measured.
    "$python" benchmarks/results.py "$@" || failed=1
}

wanted=$*
failed=0
measure throughput -m cyclone.cli.main bench --json --tasks 1000000 --workers 2 --queued 0
measure million benchmarks/million.py
measure utilisation benchmarks/utilisation.py
measure controllers benchmarks/thousand_controllers.py
measure database benchmarks/database.py
measure audit benchmarks/audit.py
measure recovery benchmarks/recovery.py
measure malformed benchmarks/malformed.py
measure comparison benchmarks/compare.py --json --rounds 2
# An hour long.
measure soak benchmarks/soak.py
exit "$failed"
