import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk import CarrierProjector, LinearProjector, Projector, ResidualProjector
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, CorruptArtifactError, FingerprintError
from tests.unit.test_types_and_config import FINGERPRINT


def saved(
    folder: Path,
    cls: type[Projector] = ResidualProjector,
    hidden: int = 4,
    embedding: int = 4,
    summary: dict[str, Any] | None = None,
) -> Projector:
    torch.manual_seed(0)
    projector = cls(hidden, embedding)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    projector.fingerprint, projector.summary = FINGERPRINT, summary or {}
    projector.save_pretrained(folder)
    return projector


@settings(max_examples=20)
@given(
    cls=st.sampled_from([LinearProjector, ResidualProjector, CarrierProjector]),
    hidden=st.integers(1, 20),
    embedding=st.integers(1, 20),
    summary=st.dictionaries(st.text(), st.integers() | st.text()),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, cls: type[Projector], hidden: int, embedding: int, summary: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("artifact")
    projector = saved(folder, cls, hidden, embedding, summary)
    loaded = Projector.from_pretrained(folder)
    assert type(loaded) is cls
    assert (loaded.hidden_size, loaded.embedding_size) == (hidden, embedding)
    assert (loaded.fingerprint, loaded.summary) == (FINGERPRINT, summary)
    state = loaded.state_dict()
    assert state.keys() == projector.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in projector.state_dict().items())


def test_the_folder_holds_three_files_and_a_card_that_names_the_backbone(tmp_path: Path) -> None:
    saved(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"projector.safetensors", "projector_config.json", "README.md"}
    assert "(residual) for m" in (tmp_path / "README.md").read_text()


def test_saving_again_replaces_the_files(tmp_path: Path) -> None:
    saved(tmp_path, LinearProjector)
    saved(tmp_path, CarrierProjector)
    assert isinstance(Projector.from_pretrained(tmp_path), CarrierProjector)


def test_a_projector_without_a_backbone_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="belongs to no backbone"):
        LinearProjector(4, 4).save_pretrained(tmp_path)


@settings(max_examples=40)
@given(data=st.data())
def test_any_damage_to_the_weights_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("artifact")
    saved(folder)
    path = folder / "projector.safetensors"
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans(), label="cut"):
        path.write_bytes(content[:place])
    else:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(CorruptArtifactError, match="cut or altered"):
        Projector.from_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "residul"}, "Did you mean 'residual'"),
        ({"format_version": 2}, "pip install -U"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"surprise": 1}, "surprise"),
        ({"hidden_size": 8}, "does not hold"),
    ],
)
def test_a_malformed_config_is_explained(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    saved(tmp_path)
    path = tmp_path / "projector_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CorruptArtifactError, match=message):
        Projector.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"kind": "resid', b"[]", b"\xff\xfe"])
def test_a_cut_config_is_explained(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path)
    (tmp_path / "projector_config.json").write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=r"projector_config\.json"):
        Projector.from_pretrained(tmp_path)


def test_a_missing_folder_names_its_neighbours(tmp_path: Path) -> None:
    saved(tmp_path / "llava-projector")
    with pytest.raises(ArtifactNotFoundError, match="Did you mean 'llava-projector'"):
        Projector.from_pretrained(tmp_path / "lava-projector")
    with pytest.raises(ArtifactNotFoundError, match="not a projector folder"):
        Projector.from_pretrained(tmp_path)
    with pytest.raises(ArtifactNotFoundError, match="local projector folder"):
        Projector.from_pretrained("somebody/something")


def test_another_backbone_is_refused_by_both_names() -> None:
    projector = LinearProjector(4, 4)
    projector.fingerprint = FINGERPRINT
    other = FINGERPRINT.model_copy(update={"model": "other", "weights_hash": "x"})
    with pytest.raises(FingerprintError, match=r"'m' of backend 'b'.*'other' of backend 'b'") as caught:
        projector.check_backbone(other)
    assert "weights_hash" in str(caught.value)
    projector.check_backbone(FINGERPRINT)


def test_pushing_uploads_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub here: its client is replaced, the folder that it is handed is real."""
    uploaded: dict[str, Any] = {}

    class Api:
        def __init__(self, **_: Any) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Repo", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path: Path, repo_id: str, **_: Any) -> str:
            uploaded.update(repo=repo_id, loaded=Projector.from_pretrained(folder_path))
            return "url"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert saved(tmp_path).push_to_hub("me/aim-projector") == "url"
    assert uploaded["repo"] == "me/aim-projector"
    assert uploaded["loaded"].fingerprint == FINGERPRINT
