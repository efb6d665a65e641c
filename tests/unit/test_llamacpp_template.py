"""A chat template becomes a plain format: what it writes for a conversation is what the format writes."""

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aim_backends.llamacpp.template import BARE, plain_format
from aim_sdk.testing.tiny.gguf_files import CHAT_TEMPLATE as VICUNA

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PARTS = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {% for part in m.content %}{{ part.text }}{% endfor %}"
    "{{ eos_token if m.role == 'assistant' else '' }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
BRACES = (
    "{% for m in messages %}{{ '{' + m.role + '} ' + m.content + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{assistant} ' }}{% endif %}"
)


@pytest.mark.parametrize("template", [VICUNA, CHATML, PARTS, BRACES])
@pytest.mark.parametrize("turns", [1, 3])
def test_a_conversation(template: str, turns: int) -> None:
    made = plain_format(template, bos="<s>", eos="</s>")
    assert made != BARE
    texts = [(f"<image>\nWhat is {n}?", f"thing {n}") for n in range(turns)]
    wrapped = [{"type": "text", "text": ""}] if template == PARTS else ""
    messages = []
    for asked, answer in texts:
        for role, text in (("user", asked), ("assistant", answer)):
            messages.append({"role": role, "content": [{**wrapped[0], "text": text}] if template == PARTS else text})
    whole = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    written = whole.render(messages=messages, add_generation_prompt=False, bos_token="<s>", eos_token="</s>")
    assert made.template is not None
    ours = "".join(
        made.template.format(image="<image>", text=asked.removeprefix("<image>\n"), answer=answer)
        for asked, answer in texts
    )
    assert written.removeprefix("<s>") == (made.system or "") + ours


@pytest.mark.parametrize(
    "template",
    [
        None,
        "{{ not a template",
        "nothing of the messages",
        "{% for m in messages %}{{ loop.index }}. {{ m.content }}\n{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_others_have_a_bare_format(template: str | None) -> None:
    assert plain_format(template, bos="<s>", eos="</s>") == BARE
