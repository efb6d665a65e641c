"""Pieces are cut out of any chat template that writes turns independently; one that does not is refused."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2 import Environment
from typer.testing import CliRunner

from aim_backends.auto import AutoBackend
from aim_backends.families.table import UntestedModelWarning, tell_untested
from aim_backends.hf.prompts import ChatPrompts, Render
from aim_sdk import PromptFormat, Query
from aim_sdk.cli import app
from aim_sdk.errors import FormatError
from aim_sdk.testing import run_checks
from aim_sdk.testing.kit import in_format
from tests.conformance.families import picture


def renderer(template: str) -> Render:
    environment = Environment()
    environment.globals["refuse"] = _refuse
    compiled = environment.from_string(template)

    def render(messages: list[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        flat = [
            (m["role"], "".join("<image>" if part["type"] == "image" else part["text"] for part in m["content"]))
            for m in messages
        ]
        return compiled.render(messages=flat, generate=add_generation_prompt)

    return render


def _refuse(reason: str) -> str:
    from jinja2 import TemplateError

    raise TemplateError(reason)


TURNS = "{% for role, text in messages %}[{{ role }}]{{ text }}|{% endfor %}{% if generate %}[assistant]{% endif %}"
# Only the last answer of a conversation shows its (empty) thought.
THINKING = """{% for role, text in messages %}[{{ role }}]\
{% if role == 'assistant' and loop.last %}<think></think>{% endif %}{{ text }}|{% endfor %}\
{% if generate %}[assistant]<think></think>{% endif %}"""
# No mark ends an answer, and the system text stands inside the first turn.
FOLDED = """{% for role, text in messages if role != 'system' %}{% if role == 'user' %}Q: \
{% if loop.first and messages[0][0] == 'system' %}{{ messages[0][1] }} {% endif %}\
{% else %} A: {% endif %}{{ text }}{% endfor %}{% if generate %} A:{% endif %}"""
NUMBERED = "{% for role, text in messages %}{{ loop.index }} {{ text }}|{% endfor %}"
ALTERNATING = "{% if messages | length > 1 %}{{ refuse('one turn only') }}{% endif %}{{ messages }}"


def test_an_answer_continues_its_query_with_the_blanks_that_lead_it() -> None:
    prompts = ChatPrompts(PromptFormat.chat(), renderer(FOLDED), "<image>")
    assert prompts.prefix == ""
    assert prompts.query("q") == "Q: <image>q A:"
    assert prompts.answer("q", "yes")[0] == " yes"
    assert prompts.demonstration("q", " yes ").text == "Q: <image>q A: yes"


def test_got_ocr2s_default_format_is_the_prompt_of_its_processor(tiny: Callable[[str], Path]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("got-ocr2")), device="cpu")
    query = Query(picture(50, 40, 0), " OCR: ")  # what the processor asks by itself
    prepared = backend.injector.prepare([query], [[]], prompt_format=backend.default_format)
    for name, tensor in backend.backbone.processor(query.image, return_tensors="pt").items():
        assert torch.equal(prepared.inputs[name], tensor), name


def test_the_system_text_is_the_prefix() -> None:
    prompts = ChatPrompts(PromptFormat.chat(system="Be brief."), renderer(TURNS), "<image>")
    assert prompts.prefix == "[system]Be brief.|"
    assert prompts.demonstration("a", "b").text == "[user]<image>a|[assistant]b|"


def test_a_thought_at_the_end_of_a_conversation_is_no_part_of_a_demonstration() -> None:
    prompts = ChatPrompts(PromptFormat.chat(), renderer(THINKING), "<image>")
    assert prompts.demonstration("a", "b").text == "[user]<image>a|[assistant]b|"
    assert prompts.query("a") == "[user]<image>a|[assistant]<think></think>"
    assert prompts.answer("a", "b")[0] == "b"


@pytest.mark.parametrize(
    ("template", "system", "reason"),
    [
        (FOLDED, "Be brief.", "without the system text"),
        (NUMBERED, None, "cannot be cut"),
        (ALTERNATING, None, "one turn only"),
    ],
)
def test_a_template_that_ties_turns_together_is_refused(template: str, system: str | None, reason: str) -> None:
    with pytest.raises(FormatError, match=reason) as caught:
        ChatPrompts(PromptFormat.chat(system=system), renderer(template), "<image>")
    assert "PromptFormat.plain" in str(caught.value)


@pytest.mark.parametrize("variable", ["enable_thinking", "thinking"])
def test_no_family_thinks_before_a_shown_answer(tiny: Callable[[str], Path], variable: str) -> None:
    """Whatever the template calls it; a template that does not ask is not told."""
    backend = AutoBackend.from_pretrained(str(tiny("internvl")), device="cpu")
    form = PromptFormat.chat()
    plain = backend.backbone.prompts(form).query("What?")
    backend = AutoBackend.from_pretrained(str(tiny("internvl")), device="cpu")
    thought = "{% if " + variable + " is not defined or " + variable + " %}<think>{% endif %}"
    backend.backbone.processor.chat_template += "{% if add_generation_prompt %}" + thought + "{% endif %}"
    assert backend.backbone.prompts(form).query("What?") == plain


def test_an_untested_type_says_so_once() -> None:
    with pytest.warns(UntestedModelWarning, match="aim-icl backends check auto --model /a/model"):
        tell_untested("next_vl", "/a/model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_untested("next_vl", "/a/model")
        tell_untested("llava", "/a/model")


def test_the_kit_checks_another_format(tiny: Callable[[str], Path]) -> None:
    backend = AutoBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    form = PromptFormat.plain("{image}Question: {text} Short answer:{answer}\n")
    other = in_format(backend, form)
    assert (other.default_format, backend.default_format) == (form, PromptFormat.chat())
    assert all(result.ok for result in run_checks(other, checks=["identity_forward", "reading_is_scored"]))
    command = ["backends", "check", "llava", "--tiny", "llava-1.5", "--format", form.template or ""]
    done = CliRunner().invoke(app, [*command, "--check", "identity_forward"])
    assert done.exit_code == 0, done.output
    assert "expected" in str(CliRunner().invoke(app, [*command[:-1], "{image}"]).exception)
