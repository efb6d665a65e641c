"""Discovery: fake distributions on a temporary path, as a package manager would leave them."""

import importlib
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aim_sdk.backend.interfaces
from aim_sdk import errors
from aim_sdk.backend.registry import BackendInfo, get_backend, list_backends, version_of

ROOT = Path(__file__).parents[2]
BACKEND = """
from aim_sdk.backend.interfaces import Backend

class Good(Backend):
    name = "good"
    from_pretrained = classmethod(lambda cls, model=None, **options: cls())
    reader = injector = fingerprint = default_format = device = dtype = None
    def default_projector(self): ...

class Unfinished(Backend):
    name = "unfinished"

class Stranger: ...
instance = object()
"""

Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Write a distribution's dist-info and modules into a folder that is first on the path."""
    before = set(sys.modules)

    def write(
        name: str,
        entry_points: str | bytes,
        *,
        version: str = "1.0",
        requires: tuple[str, ...] = (),
        modules: dict[str, str] | None = None,
        folder: str = "site",
    ) -> Path:
        site = tmp_path / folder
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
        (info / "entry_points.txt").write_bytes(
            entry_points if isinstance(entry_points, bytes) else f"[aim_sdk.backends]\n{entry_points}\n".encode()
        )
        for module, source in (modules or {}).items():
            (site / module).parent.mkdir(exist_ok=True)
            (site / f"{module}.py").write_text(source)
        if str(site) not in sys.path:
            monkeypatch.syspath_prepend(site)
        importlib.invalidate_caches()
        return site

    yield write
    for module in set(sys.modules) - before:
        del sys.modules[module]


def listed(name: str) -> list[BackendInfo]:
    return [info for info in list_backends() if info.name == name]


def test_a_backend_is_listed_without_being_imported_and_loaded_on_demand(install: Install) -> None:
    install("Some_Plugin", "good = plugin_a:Good", version="2.1", modules={"plugin_a": BACKEND})
    assert listed("good") == [BackendInfo("good", "plugin_a:Good", "some-plugin", "2.1", "ready")]
    assert "plugin_a" not in sys.modules
    cls = get_backend("good")
    assert cls is sys.modules["plugin_a"].Good
    assert issubclass(cls, aim_sdk.backend.interfaces.Backend)


def test_the_list_is_sorted_by_name(install: Install) -> None:
    install("plugin", "zeta = m:C\nAlpha = m:C\nbeta = m:C")
    names = [info.name for info in list_backends()]
    assert names == sorted(names)
    assert {"zeta", "Alpha", "beta"} <= set(names)


def test_an_unknown_name_gets_the_nearest_what_is_installed_and_the_next_command(install: Install) -> None:
    install("plugin", "lava-lamp = m:C", version="3.0")
    with pytest.raises(errors.UnknownBackendError) as caught:
        get_backend("lava-lmap")
    assert "'lava-lamp'" in str(caught.value).splitlines()[0]
    assert "lava-lamp (plugin 3.0)" in str(caught.value)
    assert "aim-icl backends list" in str(caught.value)
    assert isinstance(caught.value, KeyError)


def test_nothing_installed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), None, str(tmp_path / "absent")])
    assert list_backends() == []
    with pytest.raises(errors.UnknownBackendError, match="no installed distribution registers any"):
        get_backend("llava")


def test_two_distributions_with_one_name_are_both_named(install: Install) -> None:
    install("first", "good = plugin_b:Good", modules={"plugin_b": BACKEND})
    install("second", "good = plugin_b:Good\nother = plugin_b:Good", version="0.2")
    assert [(info.distribution, info.status) for info in listed("good")] == [
        ("first", "duplicate"),
        ("second", "duplicate"),
    ]
    with pytest.raises(errors.DuplicateBackendError) as caught:
        get_backend("good")
    assert "first 1.0" in str(caught.value)
    assert "second 0.2" in str(caught.value)
    assert get_backend("other")


def test_a_second_copy_of_a_distribution_is_not_a_duplicate_and_the_first_on_the_path_wins(install: Install) -> None:
    install("my_plugin", "good = old_copy:Good", version="1.0", folder="later")
    install("my-plugin", "good = new_copy:Good", version="1.1", folder="earlier")
    assert listed("good") == [BackendInfo("good", "new_copy:Good", "my-plugin", "1.1", "ready")]


def test_a_missing_extra_is_seen_without_importing_and_named_with_its_install_command(install: Install) -> None:
    install(
        "plugin",
        "needy = plugin_c:Good [vision]",
        requires=(
            'surely_absent_one>=2; extra == "vision"',
            'Surely-Absent.Two; extra == "vision"',
            'pytest; extra == "vision"',
            "surely_absent_base",
            'surely_absent_elsewhere; extra == "audio"',
            'surely_absent_old; extra == "vision" and python_version < "3"',
            "not a requirement !",
        ),
        modules={"plugin_c": "import surely_absent_one"},
    )
    assert [info.status for info in listed("needy")] == ["missing Surely-Absent.Two, surely_absent_one"]
    with pytest.raises(errors.MissingDependencyError, match=r'pip install "plugin\[vision\]"') as caught:
        get_backend("needy")
    assert "'surely_absent_one'" in str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_missing_package_without_extras_names_the_distribution(install: Install) -> None:
    install("plugin", "needy = plugin_d:Good", modules={"plugin_d": "import surely_absent_one.part"})
    with pytest.raises(errors.MissingDependencyError, match=r'pip install "plugin"$'):
        get_backend("needy")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("from aim_sdk.backend import NoSuchName", errors.BrokenBackendError),
        ("import shaky_pkg.absent", errors.BrokenBackendError),
        ("import surely_absent_two", errors.MissingDependencyError),
    ],
)
def test_a_failing_import_has_its_file_and_line(line: str, error: type[Exception], install: Install) -> None:
    modules = {"shaky_pkg/__init__": "from shaky_pkg.reader import x", "shaky_pkg/reader": f"import json\n\n{line}"}
    site = install("plugin", "shaky = shaky_pkg:Good", modules=modules)
    with pytest.raises(error) as caught:
        get_backend("shaky")
    assert f" (at {site / 'shaky_pkg' / 'reader.py'}:3)" in str(caught.value)


def test_the_version_of_a_backend_is_its_distributions(install: Install) -> None:
    install("aim-frog", "frog = plugin_f:Good", version="0.3")
    assert version_of("frog") == {"aim-frog": "0.3"}
    assert version_of("nobody") == {}


BROKEN = {
    "raises": ("broken:Good", "raise RuntimeError('boom')", "RuntimeError: boom"),
    "syntax": ("broken:Good", "def (", "SyntaxError"),
    "exits": ("broken:Good", "raise SystemExit(3)", "SystemExit"),
    "own module absent": ("broken.part:Good", "", "No module named"),
    "SDK of another version": ("broken:Good", "import aim_sdk.gone", "No module named 'aim_sdk.gone'"),
    "dependency of another version": ("broken:Good", "import pytest.gone", "No module named 'pytest.gone'"),
    "bare ModuleNotFoundError": ("broken:Good", "raise ModuleNotFoundError('odd')", "odd"),
    "no such class": ("broken:Absent", BACKEND, "Absent"),
    "not a backend": ("broken:Stranger", BACKEND, "expected a subclass of aim_sdk.Backend"),
    "not a class": ("broken:instance", BACKEND, "expected a subclass of aim_sdk.Backend"),
    "a module": ("broken", BACKEND, "expected a subclass of aim_sdk.Backend"),
    "abstract": ("broken:Unfinished", BACKEND, "does not implement default_format, default_projector"),
    "not a target": ("no-module:Good", BACKEND, "expected `module:Class`"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_backend_is_chained_named_and_harms_no_other(case: str, install: Install) -> None:
    target, source, message = BROKEN[case]
    install("shaky-plugin", f"broken = {target}", version="0.9", modules={"broken": source})
    install("plugin", "good = plugin_e:Good", modules={"plugin_e": BACKEND})
    assert len(listed("broken")) == 1
    assert get_backend("good")
    with pytest.raises(errors.BrokenBackendError) as caught:
        get_backend("broken")
    assert "shaky-plugin 0.9" in str(caught.value)
    assert target in str(caught.value)
    assert message in str(caught.value)
    if target == "broken:Good":
        assert caught.value.__cause__ is not None


@pytest.mark.parametrize("target", ["no-module:Good", "module", "module:", "", "a:b:c", "%(x)s"])
def test_an_invalid_target_is_listed_as_such(target: str, install: Install) -> None:
    install("plugin", f"odd = {target}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [(info.target, info.status) for info in listed("odd")] == [(target, "invalid target")]


MALFORMED = {
    "no section": b"odd = module:Class\n",
    "no delimiter": b"[aim_sdk.backends]\nodd\n",
    "twice the same option": b"[aim_sdk.backends]\nodd = m:A\nodd = m:B\n",
    "not UTF-8": b"[aim_sdk.backends]\nodd = \xff\xfe\n",
    "of another group": b"[console_scripts]\nodd\n",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_file_hides_no_other_distribution(case: str, install: Install) -> None:
    install("aaa", MALFORMED[case])
    install("plugin", "good = plugin_f:Good", modules={"plugin_f": BACKEND})
    install("zzz", b"")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [info.status for info in listed("good")] == ["ready"]
        assert get_backend("good")
        assert listed("odd") == []
    ours = b"aim_sdk.backends" in MALFORMED[case]
    assert bool(caught) == ours
    assert all("aaa-1.0.dist-info cannot be listed" in str(warning.message) for warning in caught)


def test_a_development_install_without_a_version_is_listed(install: Install) -> None:
    site = install("other", "")
    info = site / "in_place.egg-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[aim_sdk.backends]\nlocal = m:C\n")
    assert listed("local") == [BackendInfo("local", "m:C", "in-place", "unknown", "ready")]
    (info / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: in_place\nVersion: 0.3\n")
    assert [entry.version for entry in listed("local")] == ["0.3"]


@settings(deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_no_registered_text_breaks_the_list(name: str, target: str) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = Path(folder, "odd-1.0.dist-info")
        info.mkdir()
        info.joinpath("entry_points.txt").write_text(f"[aim_sdk.backends]\n{name}={target}\n", "utf-8")
        good = Path(folder, "plugin-1.0.dist-info")
        good.mkdir()
        good.joinpath("entry_points.txt").write_text("[aim_sdk.backends]\nsurely-good = m:C\n")
        sys.path.insert(0, folder)
        try:
            statuses = {entry.name: entry.status for entry in list_backends()}
        finally:
            sys.path.remove(folder)
    assert statuses["surely-good"] in ("ready", "duplicate" if name.strip() == "surely-good" else "ready")


def test_the_built_in_backends_are_registered_like_anybody_else_s() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["aim_sdk.backends"]
    built_in = {info.name: info.target for info in list_backends() if info.distribution == project["name"]}
    assert built_in == declared
    code = "import sys; from aim_sdk import list_backends; list_backends(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"aim_backends", "torch", "transformers"} & set(loaded)
