"""What can go wrong, as the programs say it.

Refusal   the file system says no: an errno and where it said so
Usage     the command line is wrong: help on stderr, exit 4
"""

from __future__ import annotations


class Refusal(Exception):
    """An operation that the simulated file system refuses.

    code: errno, the exit status. where: the step that failed, in Lustre's words, empty when the command has
    no steps. text: what is said instead of the errno's own text.
    """

    def __init__(self, code: int, where: str = "", text: str = "") -> None:
        super().__init__(code, where, text)
        self.code = code
        self.where = where
        self.text = text


class Usage(Exception):
    """A command line that the program does not understand."""
