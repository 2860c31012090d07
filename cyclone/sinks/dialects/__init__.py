"""The databases that a sink can write to, each known to its own module only."""
