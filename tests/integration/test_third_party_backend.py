"""A backend that somebody else publishes: installed by pip, found by its entry point, used like a built-in one."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
import pytest
import torch

from aim_sdk import AIMPipeline, Backend, Demonstration, PromptFormat, Query, errors, get_backend
from tests.conftest import run_cli

PLUGIN = Path(__file__).parents[1] / "plugins" / "aim-echo"
COLOURS = ["red", "green", "blue", "yellow"]
PLAIN = PromptFormat.plain("Q: {text}\n{image}A: {answer}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plugin's distribution in it, built and installed without network."""
    folder = tmp_path_factory.mktemp("third-party site")
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(PLUGIN)], check=True)
    return folder


@pytest.fixture(scope="module")
def echo(site: Path) -> Iterator[Backend]:
    """The installed backend, loaded by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        yield get_backend("echo").from_pretrained()


@pytest.fixture
def pipe(echo: Backend) -> AIMPipeline:
    return AIMPipeline(echo)


@pytest.mark.slow
def test_its_own_tests_are_the_kit_and_pass(site: Path, tmp_path: Path) -> None:
    suite = shutil.copytree(PLUGIN / "tests", tmp_path / "tests")
    code = "import pytest, sys; sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-rs', sys.argv[1]]))"
    shown = run_beside(site, code, str(suite))
    assert re.search(r"^\d+ passed, \d+ skipped", shown.splitlines()[-1])


@pytest.mark.slow
def test_a_new_backend_is_the_example_under_its_own_name(tmp_path: Path) -> None:
    made = run_cli("backends", "new", "my-vlm", "--out", str(tmp_path))
    assert made.returncode == 0, made.stderr
    folder = tmp_path / "aim-my-vlm"
    text = "".join(path.read_text() for path in sorted(folder.rglob("*")) if path.is_file())
    assert "echo" not in text.lower()
    assert "class MyVlmBackend(Backend)" in text
    assert [path.name for path in tmp_path.iterdir()] == ["aim-my-vlm"]

    installed = tmp_path / "site"
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(installed)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(folder)], check=True)
    check = "from aim_sdk.cli import main; main()"
    found = json.loads(run_beside(installed, check, "backends", "check", "my-vlm", "--json"))
    assert {result["status"] for result in found} == {"passed", "not applicable"}
    assert {result["check"] for result in found if result["status"] == "not applicable"} <= {
        "boxes_are_kept",
        "choices_are_kept",
        "constrained_is_free",
        "cost_is_foreseen",
        "identity_beams",
        "prefix_reuse_is_exact",
        "recomputed_activations",
        "sampling",
        "schema_is_kept",
        "slot_changes_nothing",
        "slot_never_generated",
        "stream_keeps_characters",
    }

    for name, reason in (("my-vlm", "exists already"), ("llava", "is taken by aim-icl"), ("My_VLM", "lower-case")):
        refused = run_cli("backends", "new", name, "--out", str(tmp_path))
        assert refused.returncode == 1
        assert reason in refused.stderr


def picture(colour: str) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (40, 30), colour)


def demonstrations() -> list[Demonstration]:
    return [Demonstration(picture(colour), f"What colour ({i})?", colour) for i, colour in enumerate(COLOURS)]


def run_beside(site: Path, code: str, *arguments: str) -> str:
    """Run code in a fresh interpreter that has the plugin's folder on its path; return what it prints."""
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ).stdout


def test_the_command_lists_it_with_the_built_in_ones(site: Path) -> None:
    listed = json.loads(run_beside(site, "from aim_sdk.cli import main; main()", "backends", "list", "--json"))
    assert {"echo", "llava", "pocket"} <= {info["name"] for info in listed}


def test_a_fresh_process_lists_it_without_importing_it_and_uses_it_by_name(site: Path) -> None:
    code = """
import json, sys
import PIL.Image
from aim_sdk import AIMPipeline, Demonstration, list_backends
(info,) = [info for info in list_backends() if info.name == "echo"]
imported = "aim_echo" in sys.modules
pipe = AIMPipeline.from_pretrained("echo")
image = PIL.Image.new("RGB", (9, 9), "red")
pipe.bank.add([Demonstration(image, "What colour?", "red")])
answer = pipe(PIL.Image.new("RGB", (9, 9), "blue"), "What colour?", shots=1, max_new_tokens=4)
print(json.dumps([info.target, info.distribution, info.version, info.status, imported, answer]))
"""
    *info, imported, answer = json.loads(run_beside(site, code))
    assert info == ["aim_echo:EchoBackend", "aim-echo", "0.1.0", "ready"]
    assert not imported
    assert isinstance(answer, str)


def test_fused_tokens_change_the_prompt_and_text_only_ones_are_the_text(pipe: AIMPipeline) -> None:
    text = "".join(f"Q: {item.text}\nA: {item.answer}\n" for item in demonstrations())
    written = AIMPipeline(pipe.backend, prompt_format=PLAIN.model_copy(update={"system": text}))
    pipe = AIMPipeline(pipe.backend, prompt_format=PLAIN)
    query = Query(picture("red"), "What colour?")
    injected = pipe.score(query, COLOURS, mode="text-only", demonstrations=demonstrations())
    assert injected == written.score(query, COLOURS, mode="zero-shot")
    assert injected != pipe.score(query, COLOURS, mode="aim", demonstrations=demonstrations())


def test_the_images_of_demonstrations_reach_the_answer_only_where_they_should(pipe: AIMPipeline) -> None:
    query = Query(picture("red"), "What colour?")
    swapped = [Demonstration(picture("white"), item.text, item.answer) for item in demonstrations()]
    for mode, images_matter in {"aim": True, "interleaved": True, "text-only": False, "no-image": False}.items():
        scores = [pipe.score(query, COLOURS, mode=mode, demonstrations=items) for items in (demonstrations(), swapped)]
        assert (scores[0] != pytest.approx(scores[1])) == images_matter, mode


def test_readings_do_not_depend_on_their_batch(echo: Backend) -> None:
    together = echo.reader.read(demonstrations(), prompt_format=PLAIN)
    for item, reading in zip(demonstrations(), together, strict=True):
        (alone,) = echo.reader.read([item], prompt_format=PLAIN)
        assert torch.equal(alone.hidden, reading.hidden)
        assert bytes(reading.token_ids[reading.answer_start :].tolist()).decode() == f"{item.answer}\n"


def test_a_stream_is_the_generated_answer_and_a_batch_is_its_queries(pipe: AIMPipeline) -> None:
    pipe.bank.add(demonstrations())
    queries = [Query(picture(colour), f"{colour}?") for colour in COLOURS]
    answers = pipe.generate(queries, shots=3, max_new_tokens=12, batch_size=2)
    for query, answer in zip(queries, answers, strict=True):
        assert "".join(pipe.stream(query.image, query.text, shots=3, max_new_tokens=12)) == answer.text
        assert pipe(query.image, query.text, shots=3, max_new_tokens=12) == answer.text


def test_its_own_errors_are_the_sdk_s(pipe: AIMPipeline, echo: Backend) -> None:
    with pytest.raises(errors.DeviceError):
        get_backend("echo").from_pretrained(dtype="float31")
    with pytest.raises(errors.ModelNotFoundError):
        get_backend("echo").from_pretrained("elsewhere")
    with pytest.raises(errors.ContextLengthError, match="2048 in all"):
        pipe(picture("red"), "long " * 500, mode="zero-shot")
    long = Demonstration(picture("red"), "long " * 500, "yes")
    with pytest.raises(errors.ContextLengthError):
        echo.reader.read([long], prompt_format=echo.default_format)
    with pytest.raises(errors.ContextLengthError) as caught:
        echo.injector.generate(
            [Query(picture("red"), text) for text in ("What?", long.text)],
            [[], []],
            prompt_format=PLAIN,
            max_new_tokens=1,
        )
    assert caught.value.query == 1
    with pytest.raises(errors.InputError, match="temperature"):
        pipe(picture("red"), "What?", mode="zero-shot", temperature=1.0)


def test_a_projector_is_saved_with_its_backbone_and_loaded_again(pipe: AIMPipeline, tmp_path: Path) -> None:
    pipe.projector.save_pretrained(tmp_path)
    again = AIMPipeline.from_pretrained("echo", projector=tmp_path)
    query = Query(picture("red"), "What colour?")
    scores = [each.score(query, COLOURS, demonstrations=demonstrations()) for each in (pipe, again)]
    assert scores[0] == pytest.approx(scores[1])  # the second one's prefix is kept
