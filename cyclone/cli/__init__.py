"""The `cyclone` command: one module for each of its commands."""
