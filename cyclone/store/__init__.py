"""Where the master's facts are kept: what both stores promise, one on disk, one in memory."""
