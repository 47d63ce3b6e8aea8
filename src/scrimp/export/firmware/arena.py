"""Where everything lies in RAM: blocks that are alive at the same time never overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class Block:
    """``size`` bytes, needed from stage ``first`` to stage ``last``, both included."""

    name: str
    size: int
    first: int
    last: int

    @property
    def bytes(self) -> int:
        """Up to the next block."""
        return self.size + -self.size % ALIGNMENT

    def meets(self, other: Block) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class Arena:
    offsets: dict[str, int]
    size: int


def place(blocks: Sequence[Block]) -> Arena:
    """First fit in four orders, and the smallest of these: deterministic, and seldom above the most that is alive."""
    orders: tuple[Callable[[Block], tuple[int, ...]], ...] = (
        lambda block: (-block.bytes, block.first),
        lambda block: (block.first, -block.bytes),
        lambda block: (-block.last, -block.bytes),
        lambda block: (block.first - block.last, -block.bytes),
    )
    return min((_first_fit(sorted(blocks, key=order)) for order in orders), key=lambda arena: arena.size)


def _first_fit(blocks: Sequence[Block]) -> Arena:
    placed: list[tuple[int, Block]] = []
    for block in blocks:
        at = 0
        for offset, other in sorted((pair for pair in placed if pair[1].meets(block)), key=lambda pair: pair[0]):
            if offset - at >= block.bytes:
                break
            at = max(at, offset + other.bytes)
        placed.append((at, block))
    return Arena({block.name: at for at, block in placed}, max((at + block.bytes for at, block in placed), default=0))


def most_alive(blocks: Sequence[Block]) -> int:
    """Bytes alive at the fullest stage: no placement can need less."""
    return max(
        (sum(block.bytes for block in blocks if block.first <= stage.first <= block.last) for stage in blocks),
        default=0,
    )
