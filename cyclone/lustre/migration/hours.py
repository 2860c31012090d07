"""The hours of a day in which migration is allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MINUTES = 24 * 60

_FORM = re.compile(r"([0-9]{1,2}):([0-9]{2})\s*-\s*([0-9]{1,2}):([0-9]{2})\Z", re.ASCII)


@dataclass(frozen=True)
class Hours:
    """From one minute of the day up to another, which may be on the next day. All the day if they are the same."""

    begin: int = 0
    end: int = 0

    @classmethod
    def of(cls, text: str) -> Hours:
        """Such as `20:00-06:00`; empty text is all the day. Raises ValueError."""
        if not text:
            return cls()
        match = _FORM.match(text)
        if match is None:
            raise ValueError(f"found {text!r}, expected two times of the day such as 20:00-06:00")
        hour, minute, last_hour, last_minute = (int(number) for number in match.groups())
        # 24:00 is the end of the day to some, and 00:00 to others.
        begin, end = hour * 60 + minute, last_hour * 60 + last_minute
        if minute > 59 or last_minute > 59 or begin >= _MINUTES or end > _MINUTES:
            raise ValueError(f"found {text!r}, expected times from 00:00 to 24:00")
        if begin == end:
            raise ValueError(f"found {text!r}, expected two different times; nothing for all the day")
        return cls(begin, end % _MINUTES)

    def hold(self, minute: int) -> bool:
        """Is this minute of the day, by the local clock, one of them?"""
        if self.begin == self.end:
            return True
        if self.begin < self.end:
            return self.begin <= minute < self.end
        return minute >= self.begin or minute < self.end

    def __str__(self) -> str:
        if self.begin == self.end:
            return "all day"
        return f"{self.begin // 60:02}:{self.begin % 60:02}-{self.end // 60:02}:{self.end % 60:02}"
