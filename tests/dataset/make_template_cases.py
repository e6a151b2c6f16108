"""Writes testdata/template_cases.json: what transformers renders.

Run it again after changing a template or a snippet:
    .venv/bin/python tests/dataset/make_template_cases.py
"""

import json
import pathlib

from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
DATA = HERE / "testdata"

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather",
        "description": "The weather \"now\" <in> a city & more",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string"},
            "unit": {"type": ["celsius", "fahrenheit"], "nullable": True},
            "days": {"type": "array", "items": {"type": "integer", "nullable": True}}}}}},
    {"type": "function", "function": {"name": "stop", "return": {"type": "string"},
                                      "parameters": {"type": "object", "properties": {}}}},
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


CALL = {"id": "abcdefghi", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2.5, None, True]}}}

CONVERSATIONS = [
    [user("Hello")],
    [user("Hello"), assistant("Hi there!")],
    [system("Be brief."), user("  padded  \n"), assistant("\n yes \t"), user("More?")],
    [system("Be brief."), user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
    [user("")],
    [user(""), assistant("")],
    [user("quotes ' \" \\ {{ not }} {% a %} {# tag #}"), assistant("`code`\n```\nx = {'a': 1}\n```")],
    [user("日本語 🎉 naïve e\u0301 \u00a0nbsp\u3000"), assistant("مرحبا \u200b زيرو\ttab\r\nend")],
    [user("<b>&amp; html</b>"), assistant("a<think>deep\nthought</think>\n\nanswer")],
    [assistant("I begin"), user("odd")],
    [user("a"), user("b")],
    [system("only system")],
    [user("weather?"), assistant(None, tool_calls=[CALL]),
     {"role": "tool", "content": "{\"t\": 21}", "name": "get_weather"}, assistant("It is 21 °C.")],
    [user("weather?"), assistant("let me see", tool_calls=[CALL, CALL]),
     {"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}, assistant("done"), user("ok")],
    [user([{"type": "text", "text": " part one "}, {"type": "image"}, {"type": "text", "text": "part two"}]),
     assistant([{"type": "text", "text": "sure"}])],
    [user("weather?"), assistant("r", reasoning_content="because"), user("and?"), assistant("z")],
    [{"role": "user"}],
    [{"role": "stranger", "content": "who?"}, user("me"), {"role": "tool", "content": {"a": [1, {"b": None}]}}],
]

# Each is rendered with VARIABLES; an error of any kind is recorded as such.
VARIABLES = {
    "text": "  Hello World, hello 日本語! ", "empty": "", "number": 7, "negative": -7, "ratio": 2.5,
    "flag": True, "off": False, "nothing": None, "items": [3, 1, 2], "words": ["b", "A", "c", "a"],
    "record": {"name": "Ada", "tags": ["x", "y"], "none": None, "items": 5, "nested": {"deep": [1, {"k": "v"}]}},
    "rows": [{"n": 2, "s": "b", "ok": True}, {"n": 1, "s": "a", "ok": False}, {"n": 3, "s": "C"}],
    "quoted": "it's \"q\" \\ \n\t\x07é\u200b", "html": "<a href='x'>&</a>",
}

EXPRESSIONS = (DATA / "expressions.txt").read_text().rstrip("\n").split("\n")

SNIPPETS = [
    "",
    "plain",
    "trailing newline\n",
    "two\n\n",
    "crlf\r\nline\r\n",
    "a\n{% if true %}\nb\n{% endif %}\nc",
    "a\n  {% if true %}\n  b\n  {% endif %}\nc",
    "a\n  {%+ if true %}\n  b\n  {%+ endif %}\nc",
    "a  {% if true +%}\n  b{% endif %}",
    "a  {%- if true -%}\n  b  {%- endif -%}  c",
    "a  {{- 1 -}}  b",
    "a\n   {{ 1 }}\n   {{ 2 }}\nb",
    "a\n   {# c #}\nb",
    "a   {#- c -#}   b",
    "a\n   {#+ c +#}\nb",
    "a {# multi\nline #}\n b",
    "x {# {{ no }} #} y",
    "{% raw %}{{ x }}{% if %}{% endraw %}!",
    "a\n  {% raw %}\n {{ x }} \n  {% endraw %}\nb",
    "a  {%- raw -%}  z  {%- endraw -%}  b",
    "{{ '}}' }}{{ \"%}\" }}",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {'b': 1}}['a']['b'] }}",
    "{{ 1 }}\n{{ 2 }}\n",
    "   {% set x = 1 %}   {{ x }}",
    "{% set x = 1 %}\n{% set y = x + 1 %}\n{{ y }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1, 2, 3] %}{{ a }}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}block {{ number }}{% endset %}[{{ x }}]",
    "{% set x | upper | trim %} block {{ number }} {% endset %}[{{ x }}]",
    "{% set record.name = 3 %}",
    "{% set ns = namespace(n=0) %}{% for i in items %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}{{ ns.c is defined }}{{ ns['a'] }}",
    "{% set n = 0 %}{% for i in items %}{% set n = n + i %}{{ n }},{% endfor %}{{ n }}",
    "{% if true %}{% set z = 5 %}{% endif %}{{ z }}",
    "{% for i in items %}{% if i == 1 %}{% set w = i %}{% endif %}{{ w }}-{% endfor %}{{ w is defined }}",
    "{% for i in items %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for i in items %}{{ loop.previtem }}|{{ loop.nextitem }};{% endfor %}",
    "{% for i in items %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for i in items %}{% for j in [1] %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}{{ loop.depth }}{% endfor %}",
    "{% for k, v in record.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in record %}{{ k }};{% endfor %}",
    "{% for c in 'añ日' %}{{ c }};{% endfor %}",
    "{% for x in missing %}a{% else %}none{% endfor %}",
    "{% for x in [] %}a{% else %}empty{% endfor %}",
    "{% for x in items %}a{% else %}empty{% endfor %}",
    "{% for x in 5 %}{% endfor %}",
    "{% for x in nothing %}{% endfor %}",
    "{% for x in items if x > 1 %}{{ loop.index }}:{{ x }} {% endfor %}",
    "{% for x in items if x > 9 %}a{% else %}filtered{% endfor %}",
    "{% for a, b in [[1, 2], [3, 4]] %}{{ a }}-{{ b }};{% endfor %}",
    "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}",
    "{% for (a, b) in [(1, 2)] %}{{ a }}{{ b }}{% endfor %}",
    "{% for x in items %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in items %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in items %}{% for y in items %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{% endfor %}",
    "{% for i in range(3) %}{{ i }}{% endfor %}",
    "{% for x in items | sort %}{{ x }}{% endfor %}",
    "{% for x in 1, 2 %}{{ x }}{% endfor %}",
    "{% for x in items %}{{ x }}{% endfor %}{{ x is defined }}{{ loop is defined }}",
    "{% if empty %}a{% elif number == 7 %}b{% else %}c{% endif %}",
    "{% if empty %}a{% elif off %}b{% else %}c{% endif %}",
    "{% if missing %}a{% else %}b{% endif %}",
    "{% if items and not empty %}a{% endif %}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(b=5, a=4) }} {{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a, b=a) %}{{ b }}{% endmacro %}{{ m(3) }}",
    "{% macro m() %}{{ number }}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}",
    "{% macro m() %} x {% endmacro %}[{{ m() | trim }}]",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in {{ number }}{% endcall %}",
    "{% macro m() %}<{{ caller(3) }}>{% endmacro %}{% call(x) m() %}in {{ x }}{% endcall %}",
    "{% macro m(x) %}{% set y = x %}{% endmacro %}{{ m(1) }}{{ y is defined }}",
    "{% with a = 1, b = number %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% filter upper %}abc {{ text }}{% endfilter %}",
    "{% filter replace('a', 'b') | upper %}aaa{% endfilter %}",
    "{% generation %}{{ number }}{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    "a\n{%- generation -%}\n x \n{%- endgeneration -%}\nb",
    "{{ strftime_now is defined }}",
    "{{ bos_token is defined }}",
    "{% if %}x{% endif %}",
    "{% if true %}",
    "{% endif %}",
    "{{ 1 +}}",
    "{{ (1 }}",
    "{{ 'abc }}",
    "{{",
    "{% for x items %}{% endfor %}",
    "{% unknown %}",
    "{{ x | nofilter }}",
    "{{ x is notest }}",
    "{% break %}",
    "{{ a b }}",
    "{{ }}",
    "{# unclosed",
    "{% raw %} unclosed",
    "{{ text | trim | upper ~ '!' }}",
    "{{ items | map('string') | join(',') | length > 3 }}",
    "{% set x = namespace() %}{% set x.y = [1] %}{% set x.y = x.y + [2] %}{{ x.y }}",
    "{% set messages = [1] %}{{ messages }}",
    "{%- set t = true -%}{%- if t -%} yes {%- endif -%}",
    "line 1\n{%- if true %}\nline 2\n{%- endif %}\nline 3",
    "{% if true -%}\n\n  kept\n{%- endif %}",
    "{{ ' a ' -}}\n b",
    "{% for x in items -%}\n  {{ x }},\n{%- endfor %}",
    "{% for x in items %}\n  {{ x }}\n{% endfor %}\nend",
    "\n\n{% if true %}x{% endif %}\n\n",
    "\t{% if true %}x\t{% endif %}",
    "\u00a0{% if true %}x{% endif %}",
    "{% set x = [] %}{% for i in items %}{% set x = x + [i] %}{% endfor %}{{ x }}",
    "{{- 'a' }}\n{{- 'b' -}}\n",
]


def render(source, variables):
    try:
        template = chat_template_utils._compile_jinja_template(source)
        return {"text": template.render(**variables)}
    except Exception as error:  # any kind: only that it fails is compared
        return {"error": type(error).__name__}


def main():
    cases = []
    for file in sorted((DATA / "templates").glob("*.jinja")):
        source = file.read_text()
        for index, conversation in enumerate(CONVERSATIONS):
            for tools in (None, TOOLS):
                for prompt in (False, True):
                    variables = {"messages": conversation, "tools": tools, "documents": None,
                                 "add_generation_prompt": prompt, "bos_token": "<s>",
                                 "eos_token": "</s>"}
                    if prompt and tools:
                        continue
                    cases.append({"template": file.name, "conversation": index,
                                  "tools": tools is not None, "prompt": prompt,
                                  **render(source, variables)})
    sources = ["{{ " + e + " }}" for e in EXPRESSIONS] + SNIPPETS
    snippets = [{"source": s, **render(s, VARIABLES)} for s in sources]
    text = json.dumps({"conversations": CONVERSATIONS, "tools": TOOLS, "renderings": cases,
                       "variables": VARIABLES, "snippets": snippets}, ensure_ascii=True, indent=0)
    (DATA / "template_cases.json").write_text(text + "\n")
    errors = sum("error" in s for s in snippets)
    print(len(cases), "conversations,", len(snippets), "snippets,", errors, "of them errors")


if __name__ == "__main__":
    main()
