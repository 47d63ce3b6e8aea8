"""Sequences that share a network and its pages of keys and values: open, extend, fork, rewind, drop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from scrimp.engine.pages import PAGE, ROOT, Pages, pages_for
from scrimp.errors import Full, UsageError

I32 = NDArray[np.int32]
F32 = NDArray[np.float32]

#: Runs tokens of spans (rows: row of the tables, start, tokens, wanted) and writes the logits that are wanted.
Run = Callable[[I32, NDArray[np.int64], I32, F32], None]
Extension = tuple["Sequence", Items[int]]


def check_tokens(tokens: Items[int] | I32, start: int, context: int, vocab: int) -> I32:
    """The tokens as the core takes them; UsageError for none, too many, and numbers that are no tokens."""
    if not len(tokens):
        raise UsageError("There are no tokens to run.", hint="give at least one")
    if start < 0 or start + len(tokens) > context:
        raise UsageError(
            f"{start + len(tokens):,} tokens exceed the context of {context:,}.",
            hint="shorten the text, or open the model with a larger context",
        )
    low, high = min(tokens), max(tokens)
    if low < 0 or high >= vocab:
        raise UsageError(
            f"Token {low if low < 0 else high} is not in 0 … {vocab - 1:,}.", hint="is it this model's tokenizer?"
        )
    return np.ascontiguousarray(tokens, np.int32)


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens that were run one after the other; made by :meth:`Sequences.open`, ended by :meth:`drop`.

    ``length`` counts the tokens whose keys and values are known.
    """

    _owner: Sequences = field(repr=False)
    _slot: int = field(repr=False)
    length: int = 0
    _pages: list[int] = field(default_factory=list, repr=False)
    _dropped: bool = field(default=False, repr=False)
    _reserved: bool = field(default=False, repr=False)  #: the tree knows tokens that were not run yet

    @property
    def tokens(self) -> list[int]:
        """Those that were run."""
        self._owner.check(self)
        return [token for page in self._pages for token in self._owner.pages.tokens(page)][: self.length]

    def fork(self) -> Sequence:
        """Another sequence that begins with the same tokens, and the same memory until one of them goes on."""
        return self._owner.fork(self)

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        self._owner.rewind(self, length)

    def drop(self) -> None:
        """The end: its pages are for others, and found by those that begin with the same tokens."""
        self._owner.drop(self)


class Sequences:
    """At most ``count`` open sequences of up to ``context`` tokens each, with their pages.

    ``tables`` has a row for each; row ``count`` is left to the engine. ``run`` takes up to ``chunk`` tokens.
    """

    def __init__(
        self, count: int, context: int, vocab: int, chunk: int, pages: Pages, run: Run,
        copy_page: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self.count, self.context, self.vocab, self.chunk, self.pages = count, context, vocab, chunk, pages
        self.tables = np.zeros((count + 1, pages_for(context)), np.int32)
        self._run, self._copy_page = run, copy_page
        self._slots = list(range(count))
        self.lock = Lock()  #: one step at a time

    def open(self, tokens: Items[int] = ()) -> Sequence:
        """A sequence that begins with what is known of ``tokens``, all but the last of them at most: its ``length``
        says how many need not be run. :class:`Full` when ``count`` are open."""
        with self.lock:
            found, length = self.pages.find(list(tokens[: self.context][:-1]))
            sequence = self._new()
            self._use(sequence, found, length)
            return sequence

    def fork(self, sequence: Sequence) -> Sequence:
        with self.lock:
            self.check(sequence)
            other = self._new()
            self._use(other, sequence._pages, sequence.length)
            return other

    def rewind(self, sequence: Sequence, length: int) -> None:
        with self.lock:
            self.check(sequence)
            if not 0 <= length <= sequence.length:
                raise UsageError(f"A sequence of {sequence.length:,} tokens cannot be rewound to {length:,}.",
                                 hint="rewind takes what is left")  # fmt: skip
            sequence.length = length
            self._release(sequence)

    def drop(self, sequence: Sequence) -> None:
        with self.lock:
            self.check(sequence)
            sequence.length = 0
            self._release(sequence)
            sequence._dropped = True
            self._slots.append(sequence._slot)

    def extend(self, work: Items[Extension], *, wanted: Items[int] | None = None) -> list[F32]:
        """Run more tokens of several sequences together, as many at a time as a run takes.

        Shapes
            an array ``(w, V)`` for each of ``work``: the logits after its last ``w`` tokens, where ``wanted`` says
            ``w``, else after its last one.
        Errors
            UsageError for what cannot be run and :class:`Full` when pages are used up; then no sequence has changed.
        """
        with self.lock:
            ids = [self._checked(sequence, tokens) for sequence, tokens in work]
            rows = [1] * len(work) if wanted is None else [int(w) for w in wanted]
            if len(rows) != len(work) or any(not 0 <= w <= len(i) for w, i in zip(rows, ids, strict=True)):
                raise UsageError("Logits are wanted of tokens that are not run.", hint="wanted is at most the tokens")
            sequences = [sequence for sequence, _ in work]
            if len({id(sequence) for sequence in sequences}) < len(sequences):
                raise UsageError("A sequence is extended twice in one call.", hint="join its tokens")
            self.pages.check_room(self._needed(sequences, ids))
            try:
                for sequence, tokens in zip(sequences, ids, strict=True):
                    self._reserve(sequence, tokens)
                return self._run_all(sequences, ids, rows)
            except BaseException:
                for sequence in sequences:
                    self._withdraw(sequence)
                raise

    def check(self, sequence: Sequence) -> None:
        """UsageError when it is not one of the open ones."""
        if not isinstance(sequence, Sequence) or sequence._owner is not self:
            raise UsageError("This sequence belongs to another model.", hint="use it with the model that opened it")
        if sequence._dropped:
            raise UsageError("This sequence was dropped.", hint="open another one")

    def _checked(self, sequence: Sequence, tokens: Items[int]) -> I32:
        self.check(sequence)
        return check_tokens(tokens, sequence.length, self.context, self.vocab)

    def _new(self) -> Sequence:
        if not self._slots:
            raise Full(
                f"All {self.count:,} sequences are open." if self.count else "The model was opened without sequences.",
                hint="drop one, or open the model with more sequences",
            )
        return Sequence(self, self._slots.pop())

    def _use(self, sequence: Sequence, pages: Items[int], length: int) -> None:
        for page in pages:
            self.pages.share(page)
        self._put(sequence, list(pages))
        sequence.length = length

    def _put(self, sequence: Sequence, pages: list[int]) -> None:
        sequence._pages = pages
        self.tables[sequence._slot, : len(pages)] = pages

    def _release(self, sequence: Sequence) -> None:
        """Pages beyond its length, the last one first."""
        keep = pages_for(sequence.length)
        while len(sequence._pages) > keep:
            self.pages.release(sequence._pages.pop())

    def _needed(self, sequences: list[Sequence], ids: list[I32]) -> int:
        """Pages that :meth:`_reserve` is going to take for all of them."""
        needed = 0
        users: dict[int, int] = {}
        lengths: dict[int, int] = {}
        for sequence, tokens in zip(sequences, ids, strict=True):
            needed += pages_for(sequence.length + len(tokens)) - len(sequence._pages)
            offset = sequence.length % PAGE
            if not offset:
                continue
            page = sequence._pages[-1]
            shared = lengths.get(page, len(self.pages.tokens(page))) > offset
            if shared and users.setdefault(page, self.pages.users(page)) > 1:
                users[page] -= 1
                needed += 1
            else:
                lengths[page] = offset + 1
        return needed

    def _reserve(self, sequence: Sequence, tokens: I32) -> None:
        """Pages for more tokens, which the tree knows from now on."""
        held, slot, new = sequence._pages, sequence._slot, tokens.tolist()
        offset = sequence.length % PAGE
        if offset:
            page = held[-1]
            if len(self.pages.tokens(page)) > offset:  # of somebody else, or forgotten
                page = self._own(sequence, offset)
            self.pages.append(page, new[: PAGE - offset])
        sequence._reserved = True
        for at in range(PAGE - offset if offset else 0, len(new), PAGE):
            page = self.pages.take(held[-1] if held else ROOT)
            self.tables[slot, len(held)] = page
            held.append(page)
            self.pages.append(page, new[at : at + PAGE])

    def _own(self, sequence: Sequence, length: int) -> int:
        """Its last page, of which it shares ``length`` tokens, so that more can be written: cut, or a copy."""
        held = sequence._pages
        page = held[-1]
        if self.pages.users(page) == 1:
            self.pages.cut(page, length)
            return page
        own = self.pages.take(held[-2] if len(held) > 1 else ROOT)
        self._copy_page(page, own)
        self.pages.append(own, self.pages.tokens(page)[:length])
        self.pages.release(page)
        self.tables[sequence._slot, len(held) - 1] = own
        held[-1] = own
        return own

    def _withdraw(self, sequence: Sequence) -> None:
        """Take back what was reserved and not run."""
        if not sequence._reserved:
            return
        sequence._reserved = False
        for number, page in reversed(list(enumerate(sequence._pages))):
            if (number + 1) * PAGE <= sequence.length:
                break
            self.pages.cut(page, max(0, sequence.length - number * PAGE))
        self._release(sequence)

    def _run_all(self, sequences: list[Sequence], ids: list[I32], wanted: list[int]) -> list[F32]:
        logits = np.empty((sum(wanted), self.vocab), np.float32)
        row = 0
        for spans in _runs(sequences, ids, wanted, self.chunk):
            tokens = np.concatenate([ids[i][at : at + count] for i, at, count, _ in spans])
            table = [(sequences[i]._slot, sequences[i].length, count, w) for i, _, count, w in spans]
            rows = sum(w for *_, w in spans)
            self._run(tokens, np.array(table, np.int64), self.tables, logits[row : row + rows])
            row += rows
            for i, _, count, _ in spans:
                sequences[i].length += count
        for sequence in sequences:
            sequence._reserved = False
        return np.split(logits, np.cumsum(wanted)[:-1]) if wanted else []


def _runs(
    sequences: list[Sequence], ids: list[I32], wanted: list[int], chunk: int
) -> Iterator[list[tuple[int, int, int, int]]]:
    """The tokens cut into runs: lists of (which, first token, tokens, wanted)."""
    run: list[tuple[int, int, int, int]] = []
    room = chunk
    for i, tokens in enumerate(ids):
        at = 0
        while at < len(tokens):
            count = min(room, len(tokens) - at)
            end = at + count
            run.append((i, at, count, max(0, end - max(at, len(tokens) - wanted[i]))))
            room, at = room - count, end
            if not room:
                yield run
                run, room = [], chunk
    if run:
        yield run
