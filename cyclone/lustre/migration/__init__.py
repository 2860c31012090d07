"""Moves the files of long lists from source OSTs to target OSTs, with bounded load on each OST and server.

Three rooms in one house, and who knows what:

*The mind* decides which entry goes to which target (`mind.py`, with `admission.py`, `fill.py`, `ost.py`, `rate.py`,
`verdict.py`, `plan.py`, `entry.py`, `statistics.py`, `hours.py`). It knows no clock, file, thread, randomness or log.

*The inputs* hold the lists (`inputs.py`, with `input_list.py`, `index.py`, `queues.py`, `away.py`, `journal.py`,
`lines.py`, `names.py`). They know files and nothing of Lustre; however long a list is, only the next few entries of
each OST are in memory.

*The generator* introduces the two to each other, to Lustre and to the master (`generator.py`, with `settings.py`,
`tasks.py`, `intake.py`, `supply.py`, `levels.py`, `background.py`, `orders.py`, `status.py`).
"""
