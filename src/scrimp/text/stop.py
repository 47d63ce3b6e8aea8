"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence

from scrimp.errors import UsageError


class StopMatcher:
    """Lets text through up to the first stop string, however the text is cut into pieces.

    The stop that is complete first counts; of two complete at once, the longer. Only the longest suffix that may be the
    beginning of a stop is held back. One Knuth–Morris–Pratt automaton per stop: a step per character and stop.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise UsageError("A stop string is empty.", hint="leave it out, or give at least one character")
        self._stops = tuple(dict.fromkeys(stops))
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> tuple[str, bool]:
        """Text that is now certainly before any stop, and whether a stop was met. After a stop all text is dropped."""
        if self.stopped:
            return "", True
        waiting = self._held + text
        for i, character in enumerate(text):
            longest = self._advance(character)
            if longest:
                self.stopped, self._held = True, ""
                return waiting[: len(waiting) - len(text) + i + 1 - longest], True
        hold = max(self._matched, default=0)
        split = len(waiting) - hold
        self._held = waiting[split:]
        return waiting[:split], False

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> int:
        """Feeds one character to every automaton; the length of the longest stop it completes, or 0."""
        longest = 0
        for s, (stop, borders) in enumerate(zip(self._stops, self._borders, strict=True)):
            matched = self._matched[s]
            while matched and stop[matched] != character:
                matched = borders[matched - 1]
            matched += stop[matched] == character
            if matched == len(stop):
                longest = max(longest, matched)
                matched = 0  # never read again
            self._matched[s] = matched
        return longest


def _borders(word: str) -> list[int]:
    """For each prefix of ``word`` the length of its longest proper suffix that is also a prefix.

    >>> _borders("abab")
    [0, 0, 1, 2]
    """
    borders, k = [0], 0
    for character in word[1:]:
        while k and word[k] != character:
            k = borders[k - 1]
        k += word[k] == character
        borders.append(k)
    return borders
