"""A process that renders one chat template and can be killed. Run as a script; imports nothing of scrimp.

Frames on stdin and stdout are a 4-byte little-endian length and that much JSON. The first frame in is the template; the
answer to it, and to every further frame (a dictionary of inputs), is ``{"text": …}`` or ``{"error": …}``. Argument:
seconds that one answer may take.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import IO, Any, NoReturn

FLOOR = (3, 1, 6)  # earlier sandboxes were escaped: CVE-2024-56326, CVE-2025-27516
MAX_MEMORY_BYTES = 1 << 30


def limit_resources() -> None:
    """Bounds memory and forbids writing files, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for name, limit in (("RLIMIT_AS", MAX_MEMORY_BYTES), ("RLIMIT_DATA", MAX_MEMORY_BYTES), ("RLIMIT_FSIZE", 0)):
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (AttributeError, OSError, ValueError):
            continue  # this system has no such limit


def environment() -> Any:
    """Jinja as chat templates expect it (whitespace, tags and names as in transformers), without a loader."""
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    if tuple(int(part) for part in jinja2.__version__.split(".")[:3]) < FLOOR:
        raise RuntimeError(f"jinja2 {jinja2.__version__} has an unsafe sandbox; 3.1.6 or newer is needed")

    class Generation(Extension):
        """``{% generation %}…{% endgeneration %}`` marks what training should learn; rendering ignores the marks."""

        tags = {"generation"}  # noqa: RUF012  Jinja declares it so

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    sandbox.filters["tojson"] = to_json
    sandbox.globals["raise_exception"] = raise_exception
    sandbox.globals["strftime_now"] = lambda form: datetime.now().strftime(str(form))
    return sandbox


def to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def end_after(seconds: int) -> None:
    """The system ends this process then, even in the middle of one long operation: the parent, who kills it earlier,
    may itself have been killed. 0 takes the limit back."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def raise_exception(message: object) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(str(message))


def render(template: Any, inputs: dict[str, Any]) -> str:
    """Stops at ``inputs["max_characters"]``, so that an endless template fills no memory."""
    limit = inputs.pop("max_characters")
    parts, length = [], 0
    for part in template.generate(**inputs):
        length += len(part)
        if length > limit:
            raise ValueError(f"its output is longer than {limit:,} characters")
        parts.append(part)
    return "".join(parts)


def answer(work: Callable[[], str], limit_s: int) -> dict[str, str]:
    end_after(limit_s)
    try:
        return {"text": work()}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except RecursionError:
        return {"error": "it nests or calls itself too deeply"}
    except Exception as error:
        return {"error": " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__}
    finally:
        end_after(0)


def read(stream: IO[bytes]) -> Any:
    """The next frame, or None at the end."""
    header = stream.read(4)
    return json.loads(stream.read(int.from_bytes(header, "little"))) if len(header) == 4 else None


def write(stream: IO[bytes], message: object) -> None:
    data = json.dumps(message).encode()
    stream.write(len(data).to_bytes(4, "little") + data)
    stream.flush()


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    limit_s = int(sys.argv[1])
    compiled: list[Any] = []
    with suppress(Exception):  # said in the answer to the template
        environment()  # imports Jinja while no template is there yet

    def compile_template() -> str:
        sandbox = environment()
        limit_resources()
        compiled.append(sandbox.from_string(first))
        return ""

    if (first := read(source)) is None:
        return
    write(sink, answer(compile_template, limit_s))
    while (inputs := read(source)) is not None:
        write(sink, answer(partial(render, compiled[0], inputs), limit_s))


if __name__ == "__main__":
    main()
