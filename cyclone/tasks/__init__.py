"""Tasks that come with Cyclone."""
