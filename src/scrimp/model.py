"""A Model: a source, its Program in the engine, and its tokenizer, opened together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from scrimp import engine, models
from scrimp.engine import ActivationBlock, Arithmetic, Engine, Kv, default_threads, pick_isa
from scrimp.engine.activations import ACTIVATION_BLOCK, with_input_scales
from scrimp.engine.cache import bytes_per_position, check_kv
from scrimp.engine.float_path import as_run, decoded_notes
from scrimp.engine.sequences import check_tokens
from scrimp.errors import Refused, UsageError
from scrimp.models.attach import attach
from scrimp.sources.locate import locate
from scrimp.sources.open import open_source
from scrimp.sources.source import Source
from scrimp.tensors import QTensor

if TYPE_CHECKING:
    from scrimp.integer.model import PictureModel
    from scrimp.text.generate import Piece
    from scrimp.text.tokenizer import Tokenizer

F32 = NDArray[np.float32]
T = TypeVar("T")

#: Positions a cache is made for unless more are asked for: memory is used only as far as positions are.
DEFAULT_CONTEXT = 8192
#: The engine's limits.
MAX_THREADS = 1024
MAX_SEQUENCES = 4096


class Model:
    """A network that runs. Use :func:`scrimp.open`; close it (or use ``with``) to release the file."""

    def __init__(
        self,
        source: Source,
        *,
        threads: int | None = None,
        context: int | None = None,
        arithmetic: Arithmetic | None = None,
        isa: str | None = None,
        kv: Kv | None = None,
        activation_block: ActivationBlock = ACTIVATION_BLOCK,
        sequences: int = 0,
        cache_bytes: int | None = None,
    ) -> None:
        """Without an ``arithmetic`` the model runs as it was made to: "int8-static" where it brings the ranges of its
        activations, else "int8"."""
        self.parsed, plain = models.build(source.config)
        shapes = {name: info.shape for name, info in source.tensors.items()}
        self.program = attach(plain, shapes, lambda name: np.asarray(source.read(name), np.float32))
        longest: int = self.parsed.context
        if context is not None and not 1 <= context <= longest:
            raise UsageError(
                f"A context of {context:,} is out of range.", hint=f"this model was made for 1 … {longest:,}"
            )
        if threads is not None and not 1 <= threads <= MAX_THREADS:
            raise UsageError(f"{threads:,} threads are out of range.", hint=f"1 … {MAX_THREADS:,} are possible")
        if not 0 <= sequences <= MAX_SEQUENCES:
            raise UsageError(f"{sequences:,} sequences are out of range.", hint=f"0 … {MAX_SEQUENCES:,} are possible")
        if cache_bytes is not None and cache_bytes < 1:
            raise UsageError(f"A cache of {cache_bytes:,} bytes holds nothing.", hint="leave it out, or give it more")
        if kv is not None:
            check_kv(kv)
        self.source = source
        self.arithmetic: Arithmetic = arithmetic or ("int8-static" if source.input_scales else "int8")
        if self.arithmetic == "int8-static":
            if not source.input_scales:
                raise UsageError(f"{source.path} brings no ranges of its activations.",
                                 hint="scrimp compress --activations static measures them")  # fmt: skip
            self.program = with_input_scales(self.program, source.input_scales)
        self.context = context or min(longest, DEFAULT_CONTEXT)
        self.threads = threads or default_threads()
        self.isa = pick_isa(isa)
        matrices, vectors, self.notes = read_tensors(source, self.program.matrices, self.program.vectors)
        try:
            self.engine = Engine(
                self.program,
                matrices,
                vectors,
                context=self.context,
                threads=self.threads,
                isa=self.isa,
                arithmetic=self.arithmetic,
                kv=kv,
                activation_block=activation_block,
                sequences=sequences,
                cache_bytes=cache_bytes,
            )
        except MemoryError:
            raise UsageError(
                f"This machine has no memory for {sequences + 1:,} sequences of {self.context:,} tokens.",
                hint="a shorter context, fewer sequences, or a limit: cache_bytes",
            ) from None

    @property
    def kv(self) -> Kv:
        """The format of keys and values in the cache."""
        return self.engine.kv

    @property
    def kv_bytes_per_token(self) -> int:
        """What every token of context takes in the caches of all layers."""
        return bytes_per_position(self.program, self.kv)

    @property
    def config(self) -> dict[str, Any]:
        return self.source.config

    @property
    def vocab_size(self) -> int:
        return self.parsed.vocab if self.encodes else self.engine.vocab

    @property
    def encodes(self) -> bool:
        """Do texts become vectors, and no further text?"""
        return self.program.head is None

    @cached_property
    def tokenizer(self) -> Tokenizer:
        from scrimp.text.tokenizer import load

        return load(self.source.tokenizer, rows=self.vocab_size, quick=not self.encodes)

    def step(self, tokens: Sequence[int], start: int) -> F32:
        """Logits ``(V,)`` after ``tokens`` at positions ``start …``; earlier positions must have been run before."""
        self._check_writes()
        ids = check_tokens(tokens, start, self.context, self.vocab_size)
        last: F32 = self.engine.forward(ids, start)[0]
        return last

    def logits(self, tokens: Sequence[int], start: int = 0) -> F32:
        """Logits ``(T, V)`` after each of ``tokens`` at positions ``start …``."""
        self._check_writes()
        ids = check_tokens(tokens, start, self.context, self.vocab_size)
        return self.engine.forward(ids, start, all_logits=True)

    def sequence(self, tokens: Sequence[int] = ()) -> engine.Sequence:
        """A sequence of its own, among up to ``sequences`` that the model was opened for: see :meth:`extend`.

        It begins with what is known of ``tokens`` from other sequences, dropped ones too: its ``length`` says how many
        need not be run. :class:`scrimp.errors.Full` when as many are open.
        """
        self._check_writes()
        return self.engine.sequences.open(tokens)

    def extend(
        self, work: Sequence[tuple[engine.Sequence, Sequence[int]]], *, wanted: Sequence[int] | None = None
    ) -> list[F32]:
        """Run more tokens of several sequences together, one or many of each.

        Shapes
            an array ``(w, V)`` for each of ``work``: the logits after its last ``w`` tokens, where ``wanted`` says
            ``w``, else after its last one.
        Errors
            UsageError for what cannot be run, :class:`scrimp.errors.Full` when the cache is; no sequence has changed.
        """
        return self.engine.sequences.extend(work, wanted=wanted)

    def embed(self, texts: str | Sequence[str]) -> F32:
        """Unit vectors ``(n, d)``, one for each text: nearby ones are texts of like meaning (text/embed.py)."""
        from scrimp.text.embed import embed

        return embed(self, [texts] if isinstance(texts, str) else texts)

    def generate(self, prompt: str | Sequence[dict[str, str]], *, raw: bool = False, **options: Any) -> Iterator[str]:
        """The reply to a prompt or chat messages, piece by piece; options as in :func:`scrimp.text.prompt.reply`."""
        for piece in self.pieces(prompt, raw=raw, **options):
            if piece.text:
                yield piece.text

    def pieces(self, prompt: str | Sequence[dict[str, str]], *, raw: bool = False, **options: Any) -> Iterator[Piece]:
        """As :meth:`generate`, with tokens, timings and the reason of the end."""
        from scrimp.text.prompt import prompt_tokens, reply

        self._check_writes()
        if not raw and "tokenizer" not in vars(self):
            from scrimp.text.chat import prepare

            prepare()  # meanwhile the tokenizer is read
        tokens = prompt_tokens(self.tokenizer, prompt, raw=raw, context=self.context)
        return reply(self.step, tokens, self.tokenizer, self.context, **options)

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_writes(self) -> None:
        if self.encodes:
            raise Refused(f"{self.source.path} is an encoder, which reads texts and writes none.",
                          hint="scrimp embed MODEL TEXT… makes vectors of texts")  # fmt: skip


def read_tensors(
    source: Source, matrices: dict[str, tuple[int, int]], vectors: dict[str, int]
) -> tuple[dict[str, QTensor], dict[str, F32], tuple[str, ...]]:
    """Every tensor of a Program from a source, each checked against the shape the Program needs.

    Matrices come in formats that run; the notes say which were decoded for that.
    """

    def read(name: str) -> tuple[QTensor | F32, QTensor | F32]:
        tensor = source.read(name)
        expected = matrices[name] if name in matrices else (vectors[name],)
        if tuple(tensor.shape) != expected:
            raise Refused(
                f"{name} has shape {tuple(tensor.shape)}; its config asks for {expected}.", hint="the file is damaged"
            )
        return tensor, as_run(tensor) if isinstance(tensor, QTensor) else tensor

    found = _each(read, (*matrices, *vectors), source.quick)
    stored = [(tensor.format, tensor.shape) for tensor, _ in found.values() if isinstance(tensor, QTensor)]
    return (
        {name: tensor for name, (_, tensor) in found.items() if isinstance(tensor, QTensor)},
        {name: tensor for name, (_, tensor) in found.items() if not isinstance(tensor, QTensor)},
        tuple(decoded_notes(stored)),
    )


def _each(read: Callable[[str], T], names: Sequence[str], quick: Callable[[str], bool]) -> dict[str, T]:
    """What ``read`` makes of every name, in their order; several threads share what is not quick."""
    found: dict[str, T] = {}
    if slow := [name for name in names if not quick(name)]:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(default_threads()) as pool:
            found = dict(zip(slow, pool.map(read, slow), strict=True))
    return {name: found[name] if name in found else read(name) for name in names}


def open_model(
    model: str | Path,
    *,
    tokenizer: Path | None = None,
    threads: int | None = None,
    context: int | None = None,
    arithmetic: Arithmetic | None = None,
    isa: str | None = None,
    kv: Kv | None = None,
    activation_block: ActivationBlock = ACTIVATION_BLOCK,
    sequences: int = 0,
    cache_bytes: int | None = None,
) -> Model:
    """Open any MODEL of the command line: a path, a catalogue name or a hub id.

    ``kv`` is the format of the key/value cache: "f16" unless given, "int8" or "int4". ``sequences``: how many of
    :meth:`Model.sequence` can be open at once, beside that of :meth:`Model.step`; ``cache_bytes``: most that the keys
    and values of all of them may take, instead of the whole context of each.
    """
    source = open_source(locate(str(model)), tokenizer=tokenizer)
    try:
        return Model(
            source, threads=threads, context=context, arithmetic=arithmetic, isa=isa, kv=kv,
            activation_block=activation_block, sequences=sequences, cache_bytes=cache_bytes,
        )  # fmt: skip
    except BaseException:
        source.close()
        raise


def open_any(
    model: str | Path, *, threads: int | None = None, isa: str | None = None, **of_text: Any
) -> Model | PictureModel:
    """Any MODEL of the command line: of text with the options of :func:`open_model`, or of pictures."""
    source = open_source(locate(str(model)), tokenizer=of_text.pop("tokenizer", None))
    try:
        if not models.sees(source.config):
            return Model(source, threads=threads, isa=isa, **of_text)
        if of_text:
            raise UsageError(f"{source.path} is a network of pictures, which has no {', '.join(of_text)}.",
                             hint="threads and isa are what it can be opened with")  # fmt: skip
        from scrimp.integer.model import PictureModel

        return PictureModel(source, threads=threads, isa=isa)
    except BaseException:
        source.close()
        raise
