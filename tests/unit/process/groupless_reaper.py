"""A reaper that may make no control groups, so that the kernel does not do its work for it."""

from cyclone.daemons import worker
from cyclone.process.control_group import ControlGroup


def main(link_fd):
    ControlGroup.below_ours = classmethod(lambda _, name: None)
    worker.main(link_fd)
