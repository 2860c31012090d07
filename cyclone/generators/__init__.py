"""Task generators that come with Cyclone."""
