"""A language model that writes what a test tells it to, letter by letter."""

import threading
from typing import ClassVar

from spae.frozen_lm import Generation
from spae.frozen_lm.writable import WritableWords

TEMPLATE = """\
{% if messages[0].role != "system" %}<|im_start|>system
Be kind.<|im_end|>
{% endif %}
{% for message in messages %}
{{ "<|im_start|>" + message.role + "\\n" + message.content }}<|im_end|>
{% endfor %}
{{ "<|im_start|>assistant\\n" if add_generation_prompt }}"""
CONTROL = {"<|im_start|>": 0x118000, "<|im_end|>": 0x118001}
PATIENCE_S = 60


class Letters:
    """Every letter is a token, and so are some words behind a space; control tokens come from no text."""

    size = 0x120000
    longest = 6
    control_tokens = CONTROL
    begins_anew = True

    def __init__(self, words):
        self.words = {f" {word}": 0x110000 + i for i, word in enumerate(words)}

    def encode(self, text):
        ids = []
        while text:
            word = next((one for one in self.words if text.startswith(one)), None)
            ids.append(self.words[word] if word else ord(text[0]))
            text = text[len(word) if word else 1 :]
        return ids

    def decode(self, ids):
        back = {id_: word for word, id_ in (self.words | CONTROL).items()}
        # Half a letter, as a tokenizer of bytes has it.
        text = "".join(back[i] if i in back else chr(i) for i in ids)
        return text.replace("½¼", "é").replace("½", "\ufffd")


class FakeLM:
    """Writes `script`, behind the last turn of the prompt; words where it is held to them: the first allowed."""

    name, context_length, chat_template = "fake", 2000, TEMPLATE
    source = revision = None
    special_tokens: ClassVar = {"eos_token": "<|im_end|>"}

    def __init__(self, script="", words=()):
        self.tokenizer = Letters(words)
        self.script = script
        self.calls = []
        self.prompts = []  # their tokens
        self.room = threading.Semaphore(10**6)  # how many more calls are answered
        self.asked = 0
        self.error = None

    def encode(self, text):
        return self.tokenizer.encode(text)

    def writable(self, words):
        return WritableWords.of(words, self.tokenizer, self.name)

    def generate(self, prompts, max_tokens, *, temperature=0.0, top_p=1.0, seed=0, constraints=(None,)):
        self.asked += 1
        assert self.room.acquire(timeout=PATIENCE_S)
        if self.error is not None:
            raise self.error
        [prompt], [constraint] = prompts, constraints
        self.prompts.append(prompt)
        self.calls.append({"prompt": self.tokenizer.decode(prompt), "temperature": temperature, "seed": seed})
        if constraint is not None:
            state, ids = constraint.start(), []
            while not constraint.finished(state) and len(ids) < max_tokens:
                ids.append(int(constraint.allowed(state)[0]))
                state = constraint.step(state, ids[-1])
            return [Generation(ids, self.tokenizer.decode(ids), None, "constraint")]
        written = (
            self.calls[-1]["prompt"]
            .rpartition("<|im_start|>assistant\n")[2]
            .replace("\ufffd", "½")
            .replace("é", "½¼")
        )
        # What is drawn counts as one letter of the script, "#".
        while "<image>" in written:
            before, _, rest = written.partition("<image>")
            written = before + "#" + rest.partition("</image>")[2]
        rest = self.script.replace("<image>", "#")[len(written) :]
        text = rest[:max_tokens].partition("#")
        text = text[0] + ("<image>zz" if text[1] else "")
        ids = [ord(letter) for letter in text]
        return [Generation(ids, text, None, "length" if len(rest) > max_tokens or "#" in rest else "eos")]
