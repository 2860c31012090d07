"""Lustre: the one room that knows it. Needs the extra `cyclone[lustre]`."""
