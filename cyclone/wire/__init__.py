"""The port to the network: the only room that knows ZeroMQ.

A `Door` is the master's side, a `Line` everybody else's. Both encrypt, both know whom they talk to, neither ever
blocks or raises because of what somebody else said or failed to hear.
"""
