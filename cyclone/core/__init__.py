"""The minds: pure objects that take a message or the time and return a decision.

Code in here knows no clock, socket, file, thread, randomness or log.
"""
