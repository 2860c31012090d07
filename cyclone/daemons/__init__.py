"""The processes: each one a page of plumbing around a mind."""
