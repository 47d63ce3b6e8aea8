from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scrimp.errors import Refused, UsageError
from scrimp.text.chat import CHATML, ChatTemplate, template_of
from scrimp.text.tokenizer import Tokenizer

ASK = [{"role": "user", "content": "Hi"}]
TALK = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": "  Grüße {{ 7*7 }} <|im_end|>"},
    {"role": "assistant", "content": "漢字 😀"},
    {"role": "user", "content": ""},
]


def render(template: str, messages: Any = ASK, timeout_s: float = 10.0, **inputs: Any) -> str:
    with ChatTemplate(template, timeout_s=timeout_s) as chat:
        return chat.render(messages, **inputs)


# what a template says


def test_chatml_is_spelled_as_everyone_spells_it() -> None:
    assert render(CHATML) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == "<|im_start|>user\nHi<|im_end|>\n"


def test_what_a_user_writes_is_no_template() -> None:
    assert "{{ 7*7 }}" in render(CHATML, TALK)


@pytest.mark.parametrize("messages", [ASK, TALK, TALK[:3], TALK[1:2]])
def test_smollm2_is_told_what_transformers_tells_it(smollm2: Tokenizer, messages: Any) -> None:
    chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    for prompt in (True, False):
        (theirs,), _ = chat_template_utils.render_jinja_template(
            [messages], chat_template=smollm2.chat_template, add_generation_prompt=prompt, **smollm2.special
        )
        assert smollm2.chat.render(messages, add_generation_prompt=prompt) == theirs


FEATURES = """{%- set ns = namespace(found=false) -%}
{%- for message in messages if message.role != 'tool' -%}
    {%- if loop.index0 > 2 %}{% break %}{% endif -%}
    {%- if message.role == 'system' %}{% set ns.found = true %}{% continue %}{% endif -%}
    {% generation %}[{{ message.role | upper }}] {{ message['content'] | trim }}{% endgeneration %}

{% endfor -%}
{%- macro tool(t) -%}{{ t.name }}: {{ t | tojson(indent=2) }}{%- endmacro -%}
{% if tools %}{% for t in tools %}{{ tool(t) }}{% endfor %}{% endif %}
{{ messages[-1:] | tojson }} {{ ns.found }} {{ messages | length }} {{ bos_token }} {{ '<é>' | tojson }}
{% if documents is none and undefined_name is not defined %}{{ messages[0].content.split('.')[0] }}{% endif %}
"""


def test_what_templates_use_renders_as_in_transformers() -> None:
    chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")
    tools = [{"name": "weather", "parameters": {"where": "string", "größe": 1}}]
    (theirs,), _ = chat_template_utils.render_jinja_template(
        [TALK], tools=tools, chat_template=FEATURES, add_generation_prompt=True, bos_token="<s>"
    )
    assert render(FEATURES, TALK, tools=tools, bos_token="<s>") == theirs


def test_the_date_is_todays() -> None:
    before, text, after = time.strftime("%Y-%m-%d"), render("{{ strftime_now('%Y-%m-%d') }}"), time.strftime("%Y-%m-%d")
    assert text in (before, after)


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(Refused, match="roles must alternate") as refused:
        render("{{ raise_exception('roles must alternate') }}")
    assert "--raw" in str(refused.value)


def test_a_template_with_a_mistake_is_refused() -> None:
    for template in ("{% for %}", "{{ messages.nothing.more }}", "{% include 'x' %}", "{{ 1/0 }}"):
        with pytest.raises(Refused, match="chat template failed"):
            render(template)


def test_a_template_with_a_mistake_is_refused_the_second_time_in_the_same_words() -> None:
    with ChatTemplate("{% for %}") as chat:
        reasons = []
        for _ in range(2):
            with pytest.raises(Refused) as refused:
                chat.render(ASK)
            reasons.append(str(refused.value))
    assert reasons[0] == reasons[1]


# which template


def test_a_model_with_chatml_tokens_and_no_template_speaks_chatml(byte_level: Tokenizer) -> None:
    assert byte_level.chat_template is None
    assert template_of(byte_level) == CHATML


def test_a_model_with_neither_asks_for_raw(spm: Tokenizer) -> None:
    with pytest.raises(UsageError, match="no chat template") as refused:
        template_of(spm)
    assert "--raw" in str(refused.value)


@pytest.mark.parametrize(
    "messages",
    [[], [{"content": "x"}], [{"role": "root", "content": "x"}], [{"role": "user", "content": 5}], ["hello"],
     [{"role": "user", "content": "x", "extra": object()}], [{"role": "user", "content": "x", "extra": b"x"}]],
)  # fmt: skip
def test_what_is_no_conversation_is_refused(messages: Any) -> None:
    with pytest.raises(UsageError):
        render(CHATML, messages)


# templates that try to get out

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ ''|attr('__class__') }}",
    "{{ messages.__class__ }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__globals__['os'].system('true') }}",
    "{{ strftime_now.__code__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(strftime_now) }}",
    "{{ ('{0.__class__}'|attr('format'))(strftime_now) }}",
    "{{ '{a.__class__}'.format_map({'a': strftime_now}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(strftime_now) }}",
    "{{ ['{0.__class__}'.format]|map('call', strftime_now)|list }}",
    "{{ [strftime_now]|map('{0.__class__}'.format)|list }}",
    "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages.clear() }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{% extends '/etc/passwd' %}",
    "{{ open('/etc/passwd').read() }}",
    "{{ __import__('os') }}",
    "{{ eval('1') }}",
    "{{ config }}{{ request.environ }}",
    "{% do messages.append(1) %}",
]


@pytest.mark.parametrize("template", ESCAPES)
def test_no_template_gets_out_of_the_sandbox(template: str) -> None:
    try:
        text = render(template)
    except Refused:
        return
    assert text.strip() in ("", "[]", "[Undefined]"), "something of Python's inside was shown"


def test_the_process_of_a_template_knows_nothing_of_our_environment() -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("only Linux shows a process's environment")
    os.environ["SCRIMP_SECRET_OF_THIS_TEST"] = "hunter2"
    try:
        with ChatTemplate(CHATML) as chat:
            chat.render(ASK)
            assert chat._process is not None
            assert b"hunter2" not in Path(f"/proc/{chat._process.pid}/environ").read_bytes()
    finally:
        del os.environ["SCRIMP_SECRET_OF_THIS_TEST"]


# templates that never end, or eat all memory

ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in 'abcdef' %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro f() %}{% for i in range(99999) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
    "{{ 10 ** 10 ** 10 }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 'a'.ljust(10 ** 10) }}",
    "{{ 'a'|center(10 ** 10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{{ (range(99999)|list * 99999)|length }}",
    "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x|length }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}abcdefgh{% endfor %}{% endfor %}",
    "{% for i in range(10 ** 12) %}{% endfor %}",
    "{{ lipsum(n=10 ** 9) }}",
    "{{ 'aaaaaaaaaaaaaaaaaaaaaaaa'|urlize * 10 ** 9 }}",
    "{{ [1]|batch(10 ** 10, 0)|list }}",
    "{{ messages|tojson(indent=10 ** 10) }}",
    "{{ 'x\ny'|indent(10 ** 10) }}",
    "(" * 50_000,
    "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "{{ " + "-" * 50_000 + "1 }}",
    "{% if 1 %}" * 20_000,
]


@pytest.mark.parametrize("template", ENDLESS, ids=range(len(ENDLESS)))
def test_no_template_takes_longer_or_more_than_it_may(template: str) -> None:
    import resource

    began, memory = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(Refused):  # most are; a few are harmless in today's Jinja
        assert len(render(template, timeout_s=1.0)) < 10**6
    assert time.perf_counter() - began < 8  # the limit, a start, and much patience with a busy machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200 * 1024  # KiB, in this process


def test_the_reason_is_told() -> None:
    with pytest.raises(Refused, match=r"longer than 0\.5 s"):
        render(ENDLESS[0], timeout_s=0.5)
    with pytest.raises(Refused, match="too much memory"):
        render("{{ 'a' * 10 ** 10 }}")
    with pytest.raises(Refused, match="longer than 16,777,216 characters"):
        render(ENDLESS[10])
    with pytest.raises(Refused, match="too deeply"):
        render(ENDLESS[1])


def test_a_template_file_of_megabytes_is_refused() -> None:
    with pytest.raises(Refused, match="characters"):
        ChatTemplate("x" * (1 << 21))


# the process


@pytest.fixture
def chat() -> Iterator[ChatTemplate]:
    with ChatTemplate(CHATML) as template:
        yield template


def test_a_second_rendering_is_quick(chat: ChatTemplate) -> None:
    chat.render(ASK)
    times = []
    for _ in range(20):
        began = time.perf_counter()
        chat.render(TALK)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02  # starting a process takes several times as long


def test_after_a_timeout_the_next_conversation_is_rendered() -> None:
    slow_if_asked = "{% if slow %}" + ENDLESS[0] + "{% endif %}ok"
    with ChatTemplate(slow_if_asked, timeout_s=2.0) as chat:
        assert chat.render(ASK) == "ok"
        with pytest.raises(Refused, match="longer than"):
            chat.render(ASK, slow=True)
        assert chat.render(ASK) == "ok"


def test_a_process_that_died_meanwhile_is_replaced(chat: ChatTemplate) -> None:
    chat.render(ASK)
    assert chat._process is not None
    chat._process.kill()
    chat._process.wait()
    assert chat.render(ASK).startswith("<|im_start|>user")


def test_closing_leaves_no_process(chat: ChatTemplate) -> None:
    chat.render(ASK)
    process = chat._process
    assert process is not None
    chat.close()
    assert process.poll() is not None
    assert chat.render(ASK).startswith("<|im_start|>user")


def test_an_interrupt_at_the_terminal_does_not_reach_the_process(chat: ChatTemplate) -> None:
    chat.render(ASK)
    assert chat._process is not None
    if hasattr(os, "getpgid"):
        assert os.getpgid(chat._process.pid) != os.getpgid(0)


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="this system has no alarms")
def test_a_process_whose_parent_was_killed_ends_by_itself() -> None:
    chat = ChatTemplate(ENDLESS[0], timeout_s=0.9)
    chat._timeout_s = 60.0  # nobody kills it from outside
    began = time.perf_counter()
    with pytest.raises(Refused):
        chat.render(ASK)
    assert 1.0 < time.perf_counter() - began < 30


def test_threads_take_turns(chat: ChatTemplate) -> None:
    texts: dict[int, str] = {}

    def work(i: int) -> None:
        texts[i] = chat.render([{"role": "user", "content": str(i)}])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {i: f"<|im_start|>user\n{i}<|im_end|>\n<|im_start|>assistant\n" for i in range(16)}
