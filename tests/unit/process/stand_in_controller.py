"""A controller to be killed: `stand_in_controller.py LIFE FILE FUNCTION…` has each function executed by a worker."""

import pickle
import signal
import sys

import task_zoo

from cyclone.messages import Assignment, Place
from cyclone.process.nursery import Nursery

life, file, *functions = sys.argv[1:]
nursery = Nursery("groupless_reaper")
nursery.start(life)
hired = []
for slot, function in enumerate(functions):
    hired.append(nursery.hire(slot))
    payload = pickle.dumps(task_zoo.Call(getattr(task_zoo, function), f"{file}.{function}"))
    place = Place(0.0, [], [Assignment(slot + 1, f"tid-{slot}", "job", 1, 0)])
    hired[-1].channel.send(place, [payload])
signal.pause()
