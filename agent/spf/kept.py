"""Answers of DNS, kept for as long as their TTL allows. Pure: the time is the caller's, in seconds of any clock."""

from dataclasses import dataclass, field, replace
from typing import Any

from agent.spf.answers import Answer, Outcome

Key = tuple[str, str]
FAILED_FOR = 30
"""Seconds for which a failure is not tried again (RFC 2308 section 7 allows five minutes)."""
MOST = 20_000


@dataclass(slots=True)
class Kept:
    """Answers by key, with the time at which each has to go. Nothing is kept that has no TTL."""

    answers: dict[Key, tuple[Answer[Any], float]] = field(default_factory=dict)

    def get(self, key: Key, now: float) -> Answer[Any] | None:
        """Return the answer with the TTL that is left of it."""
        answer, until = self.answers.get(key, (None, 0.0))
        if answer is None or until <= now:
            return None
        return answer if answer.ttl is None else replace(answer, ttl=int(until - now))

    def put(self, key: Key, answer: Answer[Any], now: float) -> None:
        """Keep an answer. When there are too many, all go: they can be asked for again."""
        seconds = FAILED_FOR if answer.outcome is Outcome.FAILED else answer.ttl or 0
        if seconds <= 0:
            return
        if len(self.answers) >= MOST:
            self.answers.clear()
        self.answers[key] = (answer, now + seconds)
