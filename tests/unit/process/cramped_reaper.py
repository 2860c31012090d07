"""A reaper whose letters lie in a very small box until they are read."""

import socket

from cyclone.daemons import worker


def main(link_fd):
    link = socket.socket(fileno=link_fd)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    worker.main(link.detach())
