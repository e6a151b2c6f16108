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

EXPRESSIONS = r"""
1 + 2 * 3 - 4 // 3
7 / 2
-7 // 2
-7 % 3
7 % -3
7.5 % 2
-7.5 // 2
2 ** 10
2 ** -1
-2 ** 2
2 ** 3 ** 2
1 / 0
number ~ ratio ~ nothing ~ flag
1.0
1e20
1e-7
1.5e300 * 10
0.1 + 0.2
100000000000000000000.0
12_345
"a" "b" 'c'
'\n\t\\\'\x41\u00e9\d' ~ "\U0001F389"
text + 'x'
text * 2
text * -1
[1, 2] + [3]
[1, 2] * 2
(1, 2) + (3,)
1 + 'a'
'a' + 1
1 < 2 < 3
1 < 2 > 5
1 == 1.0
true == 1
'a' < 'b'
[1, 2] < [1, 3]
1 < 'a'
none == none
missing == none
missing
missing.attr
missing['x']
missing + 1
missing ~ 'x'
missing is defined
missing | default('d')
missing.deep is defined
record.absent
record.absent.deper
record.absent is defined
empty | default('d')
empty | default('d', true)
nothing | default('d')
nothing | default('d', boolean=true)
'ell' in text
'zzz' not in text
3 in items
'name' in record
'x' in missing
1 in 'abc'
not flag
not not empty
flag and 'yes'
off or 'no'
off or missing
'a' if flag else 'b'
'a' if off
('a' if off) is undefined
'a' if off else 'b' if off else 'c'
items
words
record
rows
(1,)
(1, 2)
()
[]
{}
{'a': 1, 2: 'b', none: [true], 1.5: {}}
{'a': 1, 'a': 2}
quoted
[quoted]
[1.0, 1e16, 1e-5, none, true, 'x']
items[0]
items[-1]
items[9]
items[9] is undefined
items['x']
items[1:]
items[:-1]
items[::-1]
items[::2]
items[5:1]
items[-2:]
text[2:7]
text[::-1]
text[-3:]
text[3]
text[99]
text[::0]
(1, 2, 3)[1:]
record.name
record['name']
record['items']
record.tags[0]
record.nested.deep[1].k
record.nested['deep'][1]['k']
record.keys() | list
record.values() | list
record.items() | list
record.get('name')
record.get('zz')
record.get('zz', 'dflt')
record.get('zz', default='x')
record | length
record | list
text | length
items | length
number | length
missing | length
items | count
text | trim
text | upper
text | lower
text | title
text | capitalize
' é ñ ß ÿ' | upper
'ÉÑ Ω' | lower
'x-y (z) w{v}' | title
'they\'re bill\'s' | title
'they\'re bill\'s'.title()
'xxhixx' | trim('x')
text.strip()
text.lstrip()
text.rstrip() ~ '|'
'xyhixy'.strip('xy')
'a,b,,c'.split(',')
'a,b,,c'.split(',', 1)
'a b  c '.split()
' a b  c '.split(none, 1)
' a b  c '.rsplit(none, 1)
'a,b,c'.rsplit(',', 1)
'abc'.split('')
'a\nb\r\nc\n'.splitlines()
'a\nb'.splitlines(true)
text.strip().startswith('Hello')
text.startswith(('x', '  H'))
text.endswith('! ')
text.replace('l', 'L')
text.replace('l', 'L', 1)
'abc'.replace('', '-')
text | replace('l', 'L', 2)
text | replace('l', 1)
number | replace('7', '8')
text.find('World')
text.find('日')
text.rfind('l')
text.find('zz')
text.index('zz')
text.count('l')
'abc'.upper()
'a-b'.join(['x', 'y'])
','.join(items)
','.join(words)
'12'.isdigit()
''.isdigit()
'ab'.isalpha()
'a1'.isalnum()
'AB'.isupper()
'ab1'.islower()
' '.isspace()
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
'prefix-x'.removeprefix('prefix-')
'x-suffix'.removesuffix('-suffix')
'7'.zfill(3)
'-7'.zfill(4)
'ab'.ljust(4) ~ '|'
'ab'.rjust(4)
'abc'.center(8) ~ '|'
'ab'.center(5) ~ '|'
'abc' | center(9) ~ '|'
'{} and {}'.format(1, 'b')
'{1} {0} {x}'.format(1, 'b', x='c')
'%s-%d' | format('a', 3)
'%s|%r' % ('a', 'b')
'%d%%' % 5
'%s' % 5
words | join
words | join(', ')
items | join('-')
rows | join(',', attribute='s')
rows | map(attribute='n') | list
rows | map(attribute='ok', default='?') | list
words | map('upper') | list
words | map('replace', 'a', 'Z') | join
rows | selectattr('ok') | list
rows | selectattr('n', '>', 1) | map(attribute='s') | join
rows | selectattr('s', 'equalto', 'a') | list
rows | selectattr('ok', 'defined') | map(attribute='n') | list
rows | rejectattr('ok', 'defined') | map(attribute='n') | list
rows | selectattr('s', 'in', ['a', 'b']) | list | length
items | select('odd') | list
items | reject('odd') | list
items | select | list
items | select('>', 1) | list | length
rows | selectattr('nope') | list
items | first
items | last
[] | first
([] | first) is undefined
text | first
items | sort
items | sort(reverse=true)
words | sort
words | sort(case_sensitive=true)
rows | sort(attribute='n') | map(attribute='s') | join
[1, 'a'] | sort
items | reverse | list
'abc' | reverse
items | max
items | min
words | max
rows | max(attribute='n')
items | sum
rows | sum(attribute='n')
items | sum(start=10)
words | unique | list
[1, 1, 2] | unique | list
items | batch(2) | list
items | batch(2, 0) | list
record | dictsort
{'b': 1, 'A': 2} | dictsort
{'b': 1, 'A': 2} | dictsort(by='value', reverse=true)
record.nested | items | list
missing | items | list
record | tojson
record | tojson(indent=2)
record | tojson(separators=(',', ':'))
{'b': 1, 'a': 2} | tojson(sort_keys=true)
[] | tojson(indent=2)
[{}, []] | tojson(indent=1)
quoted | tojson
quoted | tojson(ensure_ascii=true)
'🎉' | tojson(ensure_ascii=true)
html | tojson
1.0 | tojson
1e100 | tojson
nothing | tojson
(1, 2) | tojson
missing | tojson
{1: 2, none: 3, true: 4} | tojson
html | escape
html | e
html | safe
number | string + 'x'
record | string
items | list
'abc' | list
'42' | int
' 42 ' | int
'42.9' | int
'x' | int
'x' | int(5)
3.9 | int
-3.9 | int
nothing | int
'2.5' | float
'x' | float
'x' | float(1.5)
3 | float
2.5 | round
3.5 | round
2.675 | round(2)
7 | round
2.1 | round(0, 'ceil')
2.19 | round(1, 'floor')
negative | abs
-2.5 | abs
'a\nb\n\nc' | indent
'a\nb\n\nc' | indent(2, true)
'a\nb\n\nc' | indent(2, blank=true)
'a\nb\n' | indent('> ')
text is string
number is string
number is number
ratio is float
number is integer
flag is integer
flag is boolean
flag is number
true is true
1 is true
off is false
nothing is none
record is mapping
items is mapping
items is iterable
text is iterable
number is iterable
items is sequence
record is sequence
(items | map('string')) is sequence
(items | map('string')) is iterable
number is odd
number is even
number is divisibleby 7
number is divisibleby(2)
number is eq 7
number is equalto(7)
number is ne 7
number is gt 3
number is lt 3
number is ge 7
number is le 7
'a' is in 'abc'
'a' is not in ['b']
number is sameas 7
text is callable
range is callable
'abc' is lower
'ABC' is upper
'upper' is filter
'odd' is test
number is not none
missing is none
number is defined and number is not none
range(3) | list
range(1, 10, 3) | list
range(5, 0, -2) | list
range(0) | list
range(1000000) | list
namespace(a=1).a
dict(a=1, b=2)
dict({'a': 1}, b=2)
items.append(4)
record.update({'a': 1})
record.pop('name')
items.index(1)
items.count(1)
items.index(99)
text.nope()
text.nope
number.real_nope
nothing.x
nothing['x']
nothing.x.y
number()
text.__class__
''.__class__.__mro__
raise_exception('boom')
-items
+number
-text
flag + 1
nothing + 1
items + 'a'
{'a': 1}['a']
{'a': 1}.a
[1, 2, 3][items[1]]
'x' ~ 1 + 2
1 + 2 ~ 'x'
'a' 'b' | upper
-3 | abs
(-3) | abs
not 1 == 2
1 if true else 2 if true else 3
[1, [2, [3]]]
words == ['b', 'A', 'c', 'a']
rows[0] == {'s': 'b', 'n': 2, 'ok': true}
rows[0] in rows
(1, 2) == [1, 2]
'a' == missing
missing == missing
text.strip().split(' ')[0] | lower | replace('h', 'J') | length
"%s" | format(missing)
'é' < 'z'
[0] and 'truthy'
(items | map('string')) and 'generator is true'
'\ttab' ~ '\N'
0x1F
0o17
0b11
0xZ
08
1.
.5
1e5
3 is string
'a' is string and 'b' is string
('a', 'b') | join
true
True
None
none | string
""" .strip("\n").split("\n")

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
    text = json.dumps({"conversations": CONVERSATIONS, "tools": TOOLS, "renderings": cases, "variables": VARIABLES, "snippets": snippets},
                      ensure_ascii=True, indent=0)
    (DATA / "template_cases.json").write_text(text + "\n")
    errors = sum("error" in s for s in snippets)
    print(len(cases), "conversations,", len(snippets), "snippets,", errors, "of them errors")


if __name__ == "__main__":
    main()
