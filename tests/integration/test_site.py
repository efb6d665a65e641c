"""The documentation as it is built: settings, signatures and references are there, and no markup is left raw."""

import ast
import html
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from aim_sdk.config import Binding, Fingerprint, ProjectorConfig, PromptFormat
from aim_sdk.evaluation.protocol import PromptSettings, Protocol
from aim_sdk.evaluation.results import Cell, CellAnswers, Prediction, Run, Score
from aim_sdk.evaluation.settings import EvalSettings
from aim_sdk.evaluation.tasks import TaskConfig
from aim_sdk.training.config import (
    EpisodeSettings,
    EvaluationSettings,
    OptimizerSettings,
    ProjectorSettings,
    TrainingConfig,
)
from aim_sdk.training.corpora import CorpusConfig
from tests.unit.test_project_files import PAGES, ROOT

SETTINGS = {
    "types": [PromptFormat, Fingerprint, Binding, ProjectorConfig],
    "training": [TrainingConfig, ProjectorSettings, EpisodeSettings, OptimizerSettings, EvaluationSettings],
    "corpora": [CorpusConfig],
    "evaluation": [EvalSettings, Protocol, PromptSettings, TaskConfig, Run, Score, CellAnswers, Prediction, Cell],
}
ROLE = re.compile(r":(?:py:)?(?:mod|class|meth|func|attr|data|exc|obj|ref|const):")
SOURCES = [path for folder in ("aim_sdk", "backends", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built pages; a warning (a link that leads nowhere, say) is an error."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed; `make test` has it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def words(page: str) -> str:
    """What a reader sees of HTML, blanks as one."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page)).split())


def article(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    return text[text.index("<article") : text.index("</article>")]


@pytest.mark.parametrize(
    ("page", "model"), [(page, model) for page, models in SETTINGS.items() for model in models], ids=str
)
def test_each_setting_stands_with_type_description_and_default(site: Path, page: str, model: type[BaseModel]) -> None:
    text = article(site / "reference" / page / "index.html")
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name} has no description"
        found = re.search(rf'<tr id="[\w.]+\.{model.__name__}\.{name}">(.*?)</tr>', text, re.DOTALL)
        assert found, f"{model.__name__}.{name} is not on the page"
        row = [words(cell) for cell in re.findall(r"<td>(.*?)</td>", found.group(1), re.DOTALL)]
        assert row[0] == name
        assert row[1], f"{model.__name__}.{name} has no type"
        written = words(field.description).replace("`", "")
        assert row[2].startswith(written), f"{model.__name__}.{name}: {row[2]!r}"
        assert (row[3] == "required") == field.is_required(), f"{model.__name__}.{name}: {row[3]!r}"


def test_the_first_setting_as_a_whole(site: Path) -> None:
    text = words(article(site / "reference" / "training" / "index.html"))
    assert "batch_size int episodes of one forward ge=1 8" in text


def test_signatures_have_types_that_lead_to_their_pages(site: Path) -> None:
    text = article(site / "reference" / "pipeline" / "index.html")
    signature = re.search(
        r'id="aim_sdk.injection.few_shot.FewShotModel.stream".*?<code>(.*?)</code></pre>', text, re.DOTALL
    )
    assert signature
    assert "text: str" in words(signature.group(1))
    assert "-> Iterator[str]" in words(signature.group(1))
    assert 'href="../types/#aim_sdk.types.ImageInput"' in signature.group(1)


def test_no_page_shows_raw_markup(site: Path) -> None:
    pages = sorted(site.rglob("index.html"))
    assert len(pages) > 30
    for page in pages:
        seen = words(re.sub(r"<pre>.*?</pre>", "", article(page), flags=re.DOTALL))
        assert not ROLE.search(seen), f"{page}: {ROLE.findall(seen)}"
        assert not re.search(r"::(\s|$)", seen), f"{page}: a literal block of reStructuredText"
        assert not re.search(r"\]\[aim_", seen), f"{page}: a reference that leads nowhere"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_markdown(path: Path) -> None:
    """Also where no page shows them: a role that is private today is on a page tomorrow."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not ROLE.search(node.value), f"{path}:{node.lineno}: write `X` or [`X`][aim_sdk.x.X]"
            assert not re.search(r"(?m)(\w|^ *)::$", node.value), (
                f"{path}:{node.lineno}: write `:` and an indented block"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_installed_from_an_index_that_does_not_have_it(page: Path) -> None:
    """aim-icl is not published: pip would find nothing, or a stranger's package."""
    assert not re.search(r"pip install (-\S+ )*[\"']?aim[-_]icl(?![\w.-]*\.whl)", page.read_text(encoding="utf-8"))


def test_messages_say_how_extras_are_added_in_one_place() -> None:
    told = [path for path in SOURCES if re.search(r'pip install (-\S+ )*[\\"\']*aim[-_]icl', path.read_text("utf-8"))]
    assert told == [ROOT / "aim_sdk" / "support" / "dependencies.py"]


def test_the_command_that_adds_an_extra_needs_no_index() -> None:
    from aim_sdk.support.dependencies import install_command

    interpreter, rest = install_command("pocket").split(" -m pip install ")
    assert interpreter.strip("'") == sys.executable
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-deps", rest.strip('"')]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "already satisfied: aim-icl[pocket]" in found.stdout, found.stdout + found.stderr


def test_extras_of_the_install_page_are_those_of_the_project() -> None:
    from tests.unit.test_project_files import PROJECT

    page = (ROOT / "docs" / "how-to" / "install.md").read_text()
    assert set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"(?m)^\| (`.*?) \|", page)))) == set(
        PROJECT["optional-dependencies"]
    )
    assert importlib.import_module("griffe_pydantic")
