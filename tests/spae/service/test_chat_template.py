"""Templates as published models have them, and what they make of a conversation; see also test_embedded.py."""

import pytest
from fake_lm import FakeLM

from spae.errors import InputError
from spae.service.models.chat_template import ChatTemplate

CONTROL = ["<s>", "</s>", "<|eot|>", "<|head|>", "<|/head|>", "<turn>", "</turn>"]
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": " Hello <|eot|> "},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": "</s><turn>"},
]
# Llama 3's way: the beginning by name, texts trimmed.
LLAMA = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|head|>' + message['role'] + '<|/head|>\n\n' + message['content'] | trim + '<|eot|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
# Gemma 2's: no system message, and turns that take turns.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<turn>' + role + '\n' + message['content'] | trim + '</turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<turn>model\n'}}{% endif %}"
)
# Mistral's first: the system message is looked for nowhere, and nothing follows the user's turn.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
# What newer ones use: a mark for training, loop controls, JSON, the date.
NEWER = """\
{%- for message in messages %}
    {%- if message.role == "system" %}{{ message | tojson }}{% continue %}{% endif %}
    {% generation %}
    {{- message.content }}
    {% endgeneration %}
{% endfor %}
{{- strftime_now("%%") }}{{ none is defined and tools is undefined }}"""


def template(source, control=CONTROL):
    lm = FakeLM()
    lm.chat_template = source
    lm.special_tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    lm.tokenizer.control_tokens = {token: 0x118100 + i for i, token in enumerate(control)}
    return ChatTemplate(lm)


def shown(ids) -> str:
    """Letters, and control tokens as their number in brackets."""
    return "".join(chr(i) if i < 0x110000 else f"[{i - 0x118100}]" for i in ids)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            LLAMA,
            "[0][3]system[4]\n\nBe kind.[2][3]user[4]\n\nHello <|eot|>[2][3]assistant[4]\n\nHi[2]"
            "[3]user[4]\n\n</s><turn>[2][3]assistant[4]\n\n",
        ),
        (
            GEMMA,
            "[0][5]user\nBe kind.\n\n Hello <|eot|>[6]\n[5]model\nHi[6]\n[5]user\n</s><turn>[6]\n[5]model\n",
        ),
        (MISTRAL, "[0][INST] Be kind.\n\n Hello <|eot|>  [/INST]Hi[1][INST] </s><turn> [/INST]"),
        (NEWER, '{"role": "system", "content": "Be kind."} Hello <|eot|> \nHi\n</s><turn>\n%True'),
    ],
)
def test_conversations(source, expected):
    assert shown(template(source).prompt(TALK)) == expected


def test_what_people_write_never_becomes_a_control_token():
    text = "<|eot|><|eot|<|eot|> <s</s>> <|\ufdd0eot|> <|e\ufdd0ot|>"
    ids = template("{{ messages[0].content }}{{ '<|eot|>' }}").prompt([{"role": "user", "content": text}])
    assert shown(ids) == text.replace("\ufdd0", "") + "[2]"


def test_the_beginning_stands_there_once():
    lm = FakeLM()
    lm.encode = lambda text: [0x118100]
    lm.special_tokens = {"bos_token": "<s>"}
    lm.tokenizer.control_tokens = {"<s>": 0x118100}
    for source in ("{{ bos_token }}{{ messages[0].content }}", "{{ messages[0].content }}"):
        lm.chat_template = source
        assert shown(ChatTemplate(lm).prompt([{"role": "user", "content": "x"}])) == "[0]x"


def test_a_model_without_control_tokens_chats_too():
    assert shown(template("{{ messages[0].content }}!", []).prompt(TALK[1:])) == " Hello <|eot|> !"


def test_what_a_template_refuses():
    with pytest.raises(InputError, match=r"messages: .*must alternate.*wanted turns"):
        template(GEMMA).prompt([TALK[1], TALK[1]])
    # The sandbox: a template that comes with a file reaches nothing of this process.
    with pytest.raises(InputError, match="does not take them"):
        template("{{ messages.__class__.__mro__[1].__subclasses__() }}").prompt(TALK)
    with pytest.raises(InputError, match="cannot be read"):
        template("{% for %}")
