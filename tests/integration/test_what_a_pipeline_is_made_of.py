"""The first argument of `AIMPipeline.from_pretrained`: a name, a class, an object, a model or a projector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aim_backends.auto import AutoBackend
from aim_backends.llava import LlavaBackend
from aim_sdk import AIMPipeline, LinearProjector, Projector
from aim_sdk.errors import ArtifactError, BackendError, CapabilityError, InputError, UnknownBackendError
from aim_sdk.projectors import untrained


@pytest.fixture(scope="module")
def loaded(tiny: Callable[[str], Path]) -> LlavaBackend:
    return LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")


@pytest.fixture
def saved(loaded: LlavaBackend, tmp_path: Path) -> Path:
    untrained("linear", loaded.vocabulary).save_pretrained(tmp_path / "projector")
    return tmp_path / "projector"


def made(*arguments: Any, **options: Any) -> AIMPipeline:
    return AIMPipeline.from_pretrained(*arguments, **{"device": "cpu", "projector": "residual", **options})


@pytest.mark.parametrize("given", ["llava", "auto", LlavaBackend, AutoBackend])
def test_a_name_or_a_class_loads_the_model(given: Any, tiny: Callable[[str], Path], loaded: LlavaBackend) -> None:
    pipe = made(given, model=tiny("llava-1.5"))
    assert type(pipe.backend) is LlavaBackend
    assert pipe.backend.fingerprint == loaded.fingerprint


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize(("variant", "name"), [("llava-1.5", "llava"), ("gemma3", "auto")])
def test_a_models_folder_gets_its_familys_backend(
    kind: Any, variant: str, name: str, tiny: Callable[[str], Path]
) -> None:
    assert made(kind(tiny(variant))).backend.name == name


def test_a_loaded_backend_is_taken_as_it_is(loaded: LlavaBackend) -> None:
    assert AIMPipeline.from_pretrained(loaded, projector="residual").backend is loaded
    with pytest.raises(InputError, match=r"'llava' is loaded already; leave out model='here'"):
        AIMPipeline.from_pretrained(loaded, model="here")
    with pytest.raises(InputError, match="loaded already; leave out device"):
        AIMPipeline.from_pretrained(loaded, projector="residual", device="cpu")


def test_a_projector_leads_to_its_backbone(saved: Path, tiny: Callable[[str], Path], loaded: LlavaBackend) -> None:
    for given in (saved, str(saved), Projector.from_pretrained(saved)):
        pipe = AIMPipeline.from_pretrained(given, model=tiny("llava-1.5"), device="cpu")
        assert type(pipe.projector) is LinearProjector
        assert pipe.projector.identity == Projector.from_pretrained(saved).identity
        assert pipe.backend.fingerprint == loaded.fingerprint
    with pytest.raises(InputError, match=r"made with 'llava-1\.5' of backend 'llava', which is not a hub id"):
        AIMPipeline.from_pretrained(saved)
    with pytest.raises(InputError, match="two projectors are given"):
        AIMPipeline.from_pretrained(saved, model=tiny("llava-1.5"), projector="residual")
    with pytest.raises(ArtifactError, match="belongs to no backbone yet"):
        AIMPipeline.from_pretrained(LinearProjector(4, 4))


def test_what_is_nothing_of_these_is_said(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(UnknownBackendError, match="Did you mean 'llava'"):
        made("lava")
    with pytest.raises(InputError, match="expected a backend's name or class"):
        made(3)
    with pytest.raises(InputError, match="leave one of them out"):
        made(tiny("llava-1.5"), model=tiny("gemma3"))
    with pytest.raises(BackendError, match="no such folder"):
        made("./nothing/here")


def test_what_is_not_loaded_is_sent_to_what_loads_it(loaded: LlavaBackend, saved: Path) -> None:
    for given in (str(saved), saved, LinearProjector, loaded.vocabulary):
        with pytest.raises(InputError, match=r"expected a loaded projector. Next: AIMPipeline\.from_pretrained"):
            AIMPipeline(loaded, given)  # type: ignore[arg-type]
    for other in ("llava", LlavaBackend, None):
        with pytest.raises(InputError, match=r"expected a loaded backend. Next: AIMPipeline\.from_pretrained"):
            AIMPipeline(other)  # type: ignore[arg-type]
    for wrong in (loaded, None, "llava"):
        with pytest.raises(InputError, match="expected a loaded backend's vocabulary"):
            Projector.from_pretrained(saved).attach(wrong)  # type: ignore[arg-type]
    for name in (None, 3, b"saved"):
        with pytest.raises(InputError, match="expected a projector's folder, or its id on the Hub"):
            Projector.from_pretrained(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("selector", ["reading", "agreed"])
def test_a_backend_that_reads_nothing_needs_a_selector_that_reads_nothing(
    loaded: LlavaBackend, monkeypatch: pytest.MonkeyPatch, selector: str
) -> None:
    monkeypatch.setattr(type(loaded.reader), "reads", False)
    with pytest.raises(CapabilityError, match=rf"'{selector}' reads each query, .* reads nothing.\nNext: .*'rices'"):
        AIMPipeline(loaded, projector=untrained("linear", loaded.vocabulary), selector=selector)
    AIMPipeline(loaded, projector=untrained("linear", loaded.vocabulary), selector="first")
