"""Which pages of keys and values are used, and what they hold: numbers only, the memory is the core's.

A tree has a node per page: the tokens it holds, and the page before it. A node grows at its end and is cut only where
nobody else looks, so whoever shares a page finds there what it found at first. Pages that nobody uses stay in the tree
until they are needed, and are found by whoever begins with the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scrimp import _core
from scrimp.errors import Full
from scrimp.sizes import format_bytes

#: Positions of a page (core/kernels/kernels.h).
PAGE: int = _core.PAGE_POSITIONS
#: What comes before a first page.
ROOT = -1


def pages_for(positions: int) -> int:
    """How many pages hold so many positions."""
    return -(-positions // PAGE)


@dataclass(slots=True)
class _Node:
    before: int
    tokens: list[int] = field(default_factory=list)


class Pages:
    """A pool of ``count`` pages, each of ``size_bytes``."""

    def __init__(self, count: int, size_bytes: int = 0) -> None:
        self.count, self.size_bytes = count, size_bytes
        self._users: dict[int, int] = {}  #: of pages that somebody uses
        self._nodes: dict[int, _Node] = {}  #: of pages in the tree
        self._after: dict[int, dict[int, None]] = {}  #: the pages that follow one in the tree
        self._spare: dict[int, None] = {}  #: in the tree, used by nobody, the longest unused first
        self._free: list[int] = []  #: used once, now nothing
        self._touched = 0  #: pages from here on were never used

    @property
    def available(self) -> int:
        """Pages that nobody uses."""
        return self.count - len(self._users)

    @property
    def touched(self) -> int:
        """Pages that were ever used: those that take memory."""
        return self._touched

    def check_room(self, pages: int) -> None:
        """:class:`Full` when fewer are available."""
        if pages > self.available:
            raise Full(
                f"{pages:,} more pages of the key/value cache are needed; {self.available:,} of {self.count:,} "
                f"({format_bytes(self.count * self.size_bytes)}) are left.",
                hint="drop a sequence, or open the model with more cache_bytes",
            )

    def take(self, before: int | None) -> int:
        """A page with one user: an empty node after ``before``, or outside the tree; :class:`Full` without one left."""
        self.check_room(1)
        if self._free:
            page = self._free.pop()
        elif self._touched < self.count:
            page = self._touched
            self._touched += 1
        else:
            self._forget(next(iter(self._spare)))
            page = self._free.pop()
        self._users[page] = 1
        if before is not None:
            self._nodes[page] = _Node(before)
            self._after.setdefault(before, {})[page] = None
        return page

    def share(self, page: int) -> None:
        """One more user."""
        self._users[page] = self._users.get(page, 0) + 1
        self._spare.pop(page, None)

    def release(self, page: int) -> None:
        """One user less. Of a sequence the last page goes first: what begins many is kept longer than what ends one."""
        self._users[page] -= 1
        if self._users[page]:
            return
        del self._users[page]
        if page in self._nodes and self._nodes[page].tokens:
            self._spare[page] = None
        elif page in self._nodes:
            self._forget(page)
        else:
            self._free.append(page)

    def tokens(self, page: int) -> list[int]:
        """What a page of the tree holds; not to be changed."""
        return self._nodes[page].tokens

    def append(self, page: int, tokens: Sequence[int]) -> None:
        self._nodes[page].tokens.extend(tokens)

    def users(self, page: int) -> int:
        return self._users[page]

    def cut(self, page: int, length: int) -> None:
        """Its first ``length`` tokens stay. Nobody may use what follows."""
        if length == len(self._nodes[page].tokens):
            return
        del self._nodes[page].tokens[length:]
        for after in list(self._after.get(page, ())):
            self._forget(after)

    def find(self, tokens: Sequence[int]) -> tuple[list[int], int]:
        """The pages that begin like ``tokens`` and how many of these they hold: whole pages, then a part of one."""
        found: list[int] = []
        page, length = ROOT, 0
        while length < len(tokens):
            rest = list(tokens[length : length + PAGE])
            page, shared = self._best(page, rest)
            if not shared:
                break
            found.append(page)
            length += shared
            if shared < PAGE:
                break
        return found, length

    def _best(self, before: int, rest: list[int]) -> tuple[int, int]:
        """The page after ``before`` that shares most of ``rest``, and how much."""
        best, most = ROOT, 0
        for page in self._after.get(before, ()):
            tokens = self._nodes[page].tokens
            if tokens[: most + 1] != rest[: most + 1]:
                continue
            shared = next((i for i, (a, b) in enumerate(zip(tokens, rest, strict=False)) if a != b),
                          min(len(tokens), len(rest)))  # fmt: skip
            if shared > most:
                best, most = page, shared
            if most == len(rest):
                break
        return best, most

    def _forget(self, page: int) -> None:
        """Out of the tree, with all that follows. Nobody uses them: who uses a page uses all before it."""
        before = self._nodes[page].before
        if before in self._after:
            del self._after[before][page]
            if not self._after[before]:
                del self._after[before]
        going = [page]
        for one in going:  # it grows: a long text is a chain of thousands of pages
            assert one not in self._users, "a page in use is never forgotten"
            going.extend(self._after.pop(one, ()))
            del self._nodes[one]
            self._spare.pop(one, None)
        self._free.extend(reversed(going))
