"""A fault drill: real daemons of their own, faults that are drawn from a seed, and a sheet of what became of the tasks.

Minds: `plan` (a seed becomes a list of faults), `checker` (what was witnessed becomes a list of violations) and
`sheet` (what is told in the end). All else does things: `site` holds the daemons, `faults` does to them what the plan says,
`relay` stands between them, `witness` writes down what was really executed, and `run` is one run from start to end.
"""
