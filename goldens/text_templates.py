"""Chat templates in the styles models use, rendered by transformers.

The templates are ours, written to need what real ones need: default system prompts, tool
definitions as JSON, dates, thinking switches, macros, namespaces, loop controls, refusals,
whitespace control, Python's string methods, `{% generation %}` blocks.
"""

import json
from datetime import datetime as real_datetime

import jinja2
from transformers.utils import chat_template_utils

NOW = real_datetime(2024, 7, 6, 9, 5, 3)


class FrozenClock(real_datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


CHATML = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

LLAMA2 = """{% if messages[0]['role'] == 'system' %}
    {% set loop_messages = messages[1:] %}
    {% set system_message = messages[0]['content'] %}
{% else %}
    {% set loop_messages = messages %}
    {% set system_message = false %}
{% endif %}
{% for message in loop_messages %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {% endif %}
    {% if loop.index0 == 0 and system_message %}
        {% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {% elif message['role'] == 'assistant' %}
        {{ ' ' + content.strip() + ' ' + eos_token }}
    {% endif %}
{% endfor %}
"""

LLAMA3 = """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You have access to the following functions.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}
                    {{- '\\n' }}
                {%- endif %}
                {%- if tool_call.function %}
                    {%- set tool_call = tool_call.function %}
                {%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

SMOLLM3 = """{# ───── defaults ───── #}
{%- if enable_thinking is not defined -%}
{%- set enable_thinking = true -%}
{%- endif -%}
{%- set reasoning_mode = "/think" if enable_thinking else "/no_think" -%}
{%- if messages[0].role == "system" -%}
  {%- set system_message = messages[0].content -%}
  {%- if "/no_think" in system_message -%}
    {%- set reasoning_mode = "/no_think" -%}
  {%- endif -%}
  {%- set custom_instructions = system_message.replace("/no_think", "").replace("/think", "").rstrip() -%}
{%- endif -%}
{{- "<|im_start|>system\\n" -}}
{%- set today = strftime_now("%d %B %Y") -%}
{{- "Today Date: " ~ today ~ "\\n" -}}
{{- "Reasoning Mode: " + reasoning_mode + "\\n\\n" -}}
{%- if custom_instructions -%}
  {{- custom_instructions + "\\n\\n" -}}
{%- endif -%}
{{- "<|im_end|>\\n" -}}
{# ───── main loop ───── #}
{%- for message in messages -%}
    {%- set content = message.content if message.content is string else "" -%}
    {%- if message.role == "user" -%}
        {{ "<|im_start|>" + message.role + "\\n" + content + "<|im_end|>\\n" }}
    {%- elif message.role == "assistant" -%}
        {% generation %}
        {%- if reasoning_mode == "/think" -%}
            {{ "<|im_start|>assistant\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- else -%}
            {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n" + content.lstrip("\\n") + "<|im_end|>\\n" }}
        {%- endif -%}
        {% endgeneration %}
    {%- elif message.role == "tool" -%}
        {{ "<|im_start|>" + "user\\n" + content + "<|im_end|>\\n" }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {%- if reasoning_mode == "/think" -%}
        {{ "<|im_start|>assistant\\n" }}
    {%- else -%}
        {{ "<|im_start|>assistant\\n" + "<think>\\n\\n</think>\\n" }}
    {%- endif -%}
{%- endif -%}
"""

GENERATION = """{% for m in messages %}
{% if m.role == 'assistant' %}
<a>
{%- generation -%}
  {{ m.content }}
  {% set seen = m.content %}
{%- endgeneration -%}
</a>[{{ seen }}]
{% else %}
{{ m.role }}: {{ m.content }}
{% endif %}
{% endfor %}
{# {% generation %} in a comment #}{{ '{% generation %} in a string' }}
{% raw %}{% generation %} raw {% endgeneration %}{% endraw %}"""

MACROS = """{%- macro type_of(spec, depth=0) -%}
  {%- if spec.type == "array" -%}
    list[{{ type_of(spec["items"], depth + 1) }}]
  {%- elif spec.type is string -%}
    {%- set names = {"string": "str", "integer": "int", "number": "float", "boolean": "bool"} -%}
    {{- names.get(spec.type, "any") -}}
  {%- elif spec.type is iterable -%}
    {%- for t in spec.type -%}{{ type_of({"type": t}) }}{{ " | " if not loop.last }}{%- endfor -%}
  {%- else -%}
    any
  {%- endif -%}
{%- endmacro -%}
{%- macro frame(title) -%}<{{ title }}>{{ caller() }}</{{ title|lower }}>{%- endmacro -%}
{% for tool in tools or [] %}
def {{ tool.function.name }}(
{%- for name, spec in tool.function.parameters.properties.items() -%}
  {{ name }}: {{ type_of(spec) }}{% if name not in tool.function.parameters.required %} = None{% endif %}{{ ", " if not loop.last }}
{%- endfor -%}
):
{%- set found = namespace(n=0, names=[]) %}
{%- for name in tool.function.parameters.properties %}
  {%- if loop.index > 3 %}{% break %}{% endif %}
  {%- if name.startswith("_") %}{% continue %}{% endif %}
  {%- set found.n = found.n + 1 %}
  {%- set found.names = found.names + [name|upper] %}
{%- endfor %} # {{ found.n }} {{ found.names | join("/") }}
{% endfor %}
{% for message in messages %}
{% call frame(message.role|title) %}{{ message.content|trim }}{% endcall %}

{% if loop.nextitem is defined %}-> {{ loop.nextitem.role }}{% endif %} {{ loop.previtem.role if loop.previtem }} {{ loop.index }}/{{ loop.length }} {{ loop.revindex0 }} {{ loop.cycle("a", "b") }}
{% else %}
nobody speaks
{% endfor %}
"""

PYTHON = """{% set c = messages[0].content %}
{{ c.split() }}|{{ c.split(' ', 1) }}|{{ c.strip('Hx.') }}|{{ c.upper() }}|{{ c.title() }}|{{ c.capitalize() }}
{{ c.find('o') }} {{ c.count('l') }} {{ c.replace('l', 'L', 1) }} {{ c.isdigit() }} {{ '12'.isdigit() }} {{ c.splitlines() }}
{{ c[0] }} {{ c[-1] }} {{ c[1:4] }} {{ c[::-1] }} {{ c[:-3] }} {{ c|length }} {{ 'ello' in c }} {{ c.endswith('.') }}
{{ true }} {{ none }} {{ 1.0 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 8 }} {{ -7 % 3 }} {{ 1 == 1.0 }} {{ [1, 'a', none, true, 2.5] }} {{ {'k': 'v', 'n': [1]} }}
{{ messages[0].items() | list | length }} {{ messages[0].get('absent', 'dflt') }} {{ messages[0].keys() | list }} {{ messages[0]['absent'] is defined }} {{ messages[0].absent is none }} [{{ messages[0].absent }}] [{{ undefined_name }}]
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('; ') }}
{{ messages | rejectattr('role', 'equalto', 'user') | list | length }} {{ range(3) | list }} {{ [3, 1, 2] | sort }} {{ [1, 2] + [3] }} {{ 'a' ~ 1 ~ none }}
{{ 'x' if messages | length > 5 else 'y' }} {{ (messages | first).role }} {{ (messages | last).role }} {{ 'q' * 3 }} {{ "%s-%d" | format("a", 3) }}
{{ '  a b '|trim }}|{{ 'abc'|replace('b', '') }}|{{ none|default('d') }}|{{ undefined_name|default('d') }}|{{ ''|default('d', true) }}|{{ 'a,b'.split(',')[-1] }}|{{ dict(a=1).a }}|{{ "<&>\\"'" }}|{{ "<b>"|e }}
{% if bos_token is defined and bos_token is not none %}{{ bos_token }}{% endif %}{{ pad_token }}
{{ add_generation_prompt }} {{ tools }} {{ documents }} {{ strftime_now('%Y-%m-%d %H:%M:%S %A %j %y %b %-d') }}
{% if messages[0]['content'] is string and messages[0] is mapping and messages is not mapping and 3 is number and messages is iterable %}types{% endif %}
"""

TOJSON = """{{ value | tojson }}
{{ value | tojson(indent=2) }}
{{ value | tojson(separators=(',', ':')) }}
{{ value | tojson(ensure_ascii=true) }}
{{ value | tojson(sort_keys=true, indent=1) }}
{{ [] | tojson(indent=2) }}{{ {} | tojson(indent=2) }}{{ none | tojson }}{{ 'a/b</x>' | tojson }}{{ messages[0] | tojson }}"""

WHITESPACE = """
   {% if true %}
   kept indent
   {%- endif %}

  {%+ if true %} plus {% endif +%}
tail
{#- comment -#}

   {{- ' glued ' -}}   
x{% for m in messages %}

- {{ m.content }}
{% endfor %}
\t{% set a = 1 %}\t
end

"""

USER = {"role": "user", "content": "Hello there, world."}
SYSTEM = {"role": "system", "content": "  You are terse.\n"}
ASSISTANT = {"role": "assistant", "content": "Hi! How can I help? \n"}
AGAIN = {"role": "user", "content": "What's the weather in Zürich? <b>&\"quotes\"</b> 😀"}
THOUGHT = {"role": "assistant", "content": "<think>\nIt is July.\n</think>\n\nWarm."}
REASONED = {"role": "assistant", "reasoning": "It is July.", "content": "Warm."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city, \"now\" & later; é ü <tag>",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "City"},
                    "days": {"type": "integer", "default": 3, "minimum": 0.5},
                    "_hidden": {"type": ["string", "null"]},
                    "tags": {"type": "array", "items": {"type": "number"}},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}, "required": []}}},
]
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "x": [1.0, True, None]}}}
    ],
}
RESULT = {"role": "tool", "name": "get_weather", "content": "{\"temp\": 31.5}"}
RESULT2 = {"role": "tool", "name": "get_weather", "content": "second"}
ODD = {
    "z": [1, -2, 1.5, 1e16, 1e-7, 1e22, 123456789012345678, True, False, None],
    "a": {"nested": {}, "list": [], "é\n\t\"\\\u0001\u007f\u2028": "😀/</script>'"},
    "float": 3.0,
}

CHATS = [[USER], [SYSTEM, USER, ASSISTANT, AGAIN]]
TOOL_CHAT = [SYSTEM, AGAIN, CALL, RESULT, RESULT2, THOUGHT, USER, REASONED]


def case(messages, prompt=True, **kwargs):
    return {"messages": messages, "add_generation_prompt": prompt, "kwargs": kwargs}


TEMPLATES = {
    "chatml": (CHATML, [case(CHATS[0]), case(CHATS[1]), case(CHATS[1], False), case([])]),
    "llama2": (LLAMA2, [case(CHATS[0]), case(CHATS[1]), case([USER, AGAIN])]),
    "llama3": (
        LLAMA3,
        [
            case(CHATS[0]),
            case(CHATS[1], False),
            case([SYSTEM, AGAIN, CALL, RESULT], tools=TOOLS),
            case(CHATS[0], date_string="1 Jan 2000"),
            case([AGAIN, {**CALL, "tool_calls": CALL["tool_calls"] * 2}], tools=TOOLS),
        ],
    ),
    "qwen": (
        QWEN,
        [
            case(CHATS[0]),
            case(CHATS[1]),
            case(TOOL_CHAT, tools=TOOLS),
            case(TOOL_CHAT, False, tools=TOOLS, enable_thinking=True),
            case(CHATS[0], enable_thinking=False),
            case([USER, THOUGHT]),
        ],
    ),
    "smollm3": (
        SMOLLM3,
        [
            case(CHATS[0]),
            case(CHATS[1]),
            case(CHATS[1], False, enable_thinking=False),
            case([{"role": "system", "content": "Be kind. /no_think"}, USER, ASSISTANT, AGAIN, THOUGHT]),
        ],
    ),
    "generation": (GENERATION, [case([USER, ASSISTANT, AGAIN, {"role": "assistant", "content": "Zürich: 😀"}])]),
    "macros": (MACROS, [case(CHATS[1], tools=TOOLS), case([]), case([USER])]),
    "python": (PYTHON, [case(CHATS[0]), case(CHATS[1], False, documents=[{"title": "t", "text": "x"}])]),
    "tojson": (TOJSON, [case(CHATS[0], value=ODD), case([CALL], value="plain"), case([RESULT], value=[TOOLS[0]])]),
    "whitespace": (WHITESPACE, [case(CHATS[1])]),
}


def write(path):
    chat_template_utils.datetime = FrozenClock
    document = {"now": NOW.isoformat(), "bos": "<s>", "eos": "</s>", "templates": []}
    for name, (source, cases) in TEMPLATES.items():
        rendered = []
        for one in cases:
            kwargs = dict(one["kwargs"])
            result = dict(one)
            try:
                texts, spans = chat_template_utils.render_jinja_template(
                    [one["messages"]],
                    tools=kwargs.pop("tools", None),
                    documents=kwargs.pop("documents", None),
                    chat_template=source,
                    return_assistant_tokens_mask=True,
                    add_generation_prompt=one["add_generation_prompt"],
                    bos_token="<s>",
                    eos_token="</s>",
                    **kwargs,
                )
                text = texts[0]
                result["text"] = text
                result["assistant"] = [
                    [len(text[:start].encode()), len(text[:end].encode())] for start, end in spans[0]
                ]
            except jinja2.exceptions.TemplateError as error:
                result["error"] = str(error)
            rendered.append(result)
        document["templates"].append({"name": name, "source": source, "cases": rendered})
    path.write_text(json.dumps(document, ensure_ascii=True, indent=1) + "\n")
