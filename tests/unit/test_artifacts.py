import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk import CarrierProjector, LinearProjector, Projector, ResidualProjector
from aim_sdk.errors import ArtifactError, ArtifactNotFoundError, CorruptArtifactError, FingerprintError, InputError
from aim_sdk.projectors import KINDS
from aim_sdk.projectors.carrier import Carrier
from aim_sdk.projectors.saved import config_hash
from tests.unit.test_projectors import OPTIONS
from tests.unit.test_types_and_config import FINGERPRINT


def saved(
    folder: Path,
    cls: type[Projector] = ResidualProjector,
    hidden: int = 4,
    embedding: int = 4,
    summary: dict[str, Any] | None = None,
    **options: Any,
) -> Projector:
    torch.manual_seed(0)
    projector = cls(hidden, embedding, **options)
    for parameter in projector.parameters():
        torch.nn.init.normal_(parameter)
    projector.fingerprint, projector.summary = FINGERPRINT, summary or {}
    projector.save_pretrained(folder)
    return projector


def rewritten(folder: Path, change: Mapping[str, Any]) -> None:
    """Change fields of the configuration, as somebody would who means it: its hash is the new one's."""
    path = folder / "projector_config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps(config | {"config_sha256": config_hash(config)}))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(KINDS)),
    hidden=st.integers(1, 20),
    embedding=st.integers(1, 20),
    summary=st.dictionaries(st.text(), st.integers() | st.text()),
    layers=st.sampled_from([(-1,), (0, 3, -1)]),
    own=st.booleans(),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    hidden: int,
    embedding: int,
    summary: dict[str, Any],
    layers: tuple[int, ...],
    own: bool,
) -> None:
    folder = tmp_path_factory.mktemp("artifact")
    options = OPTIONS.get(kind, {}) if own else {}
    projector = saved(folder, KINDS[kind], hidden, embedding, summary, layers=layers, **options)
    loaded = Projector.from_pretrained(folder)
    assert type(loaded) is KINDS[kind]
    assert (loaded.layers, loaded.options) == (layers, projector.options)
    assert options.items() <= loaded.options.items()
    assert loaded.identity == projector.identity
    assert (loaded.hidden_size, loaded.embedding_size) == (hidden, embedding)
    assert (loaded.fingerprint, loaded.summary) == (FINGERPRINT, summary)
    state = loaded.state_dict()
    assert state.keys() == projector.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in projector.state_dict().items())


@pytest.mark.parametrize("field", ["layers", "options", "config_sha256"])
def test_a_configuration_without_one_of_its_fields_is_refused(tmp_path: Path, field: str) -> None:
    saved(tmp_path, CarrierProjector)
    path = tmp_path / "projector_config.json"
    config = json.loads(path.read_text())
    del config[field]
    if field != "config_sha256":
        config["config_sha256"] = config_hash(config)
    path.write_text(json.dumps(config))
    with pytest.raises(CorruptArtifactError, match=rf"{field}: Field required|altered"):
        Projector.from_pretrained(tmp_path)


def test_a_configuration_without_an_option_is_refused(tmp_path: Path) -> None:
    """Its default may have been another one when the projector was saved."""
    saved(tmp_path, CarrierProjector, place="after")
    assert json.loads((tmp_path / "projector_config.json").read_text())["options"] == {"place": "after"}
    rewritten(tmp_path, {"options": {}})
    with pytest.raises(CorruptArtifactError, match="place missing"):
        Projector.from_pretrained(tmp_path)


def test_a_kind_loads_its_own_and_refuses_another(tmp_path: Path) -> None:
    carrier = saved(tmp_path, CarrierProjector)
    for kind in (Projector, Carrier, CarrierProjector):
        loaded = kind.from_pretrained(tmp_path)
        assert isinstance(loaded, CarrierProjector)
        assert loaded.identity == carrier.identity
    with pytest.raises(ArtifactError, match="'carrier', a CarrierProjector; expected 'linear'") as caught:
        LinearProjector.from_pretrained(tmp_path)
    assert f"CarrierProjector.from_pretrained('{tmp_path}')" in str(caught.value)


def test_the_hubs_keywords_reach_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    asked: list[tuple[str, str, dict[str, Any]]] = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        asked.append((repo_id, filename, options))
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    keywords = {
        "revision": "v2",
        "cache_dir": tmp_path / "cache",
        "token": "secret",
        "local_files_only": True,
        "force_download": True,
    }
    assert isinstance(Projector.from_pretrained("me/aim-projector", **keywords), ResidualProjector)
    files = ["projector_config.json", "projector.safetensors"]
    assert asked == [("me/aim-projector", name, keywords) for name in files]


def test_a_saved_projector_takes_no_options(tmp_path: Path) -> None:
    saved(tmp_path, CarrierProjector)
    with pytest.raises(InputError, match="takes no place"):
        Projector.from_pretrained(tmp_path, place="after")


def test_only_the_local_cache_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ArtifactNotFoundError, match="local cache of the Hub does not hold it"):
        Projector.from_pretrained("me/aim-projector", local_files_only=True, cache_dir=tmp_path)


def test_projectors_that_project_differently_have_different_identities() -> None:
    """A bank made with one is never taken for the other's, whatever their weights."""
    given: list[dict[str, Any]] = [{}, {"place": "after"}, {"layers": (2, -1)}, {"layers": (1, -1)}]
    made = [CarrierProjector(4, 4, **options) for options in given]
    for projector in made[3:]:
        projector.load_state_dict(made[2].state_dict())
    assert len({projector.identity for projector in made}) == len(made)


def test_the_folder_holds_three_files_and_a_card_that_names_the_backbone(tmp_path: Path) -> None:
    saved(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"projector.safetensors", "projector_config.json", "README.md"}
    assert "(residual) for m" in (tmp_path / "README.md").read_text()


def test_the_card_says_how_training_ended_and_names_the_model_on_the_hub(tmp_path: Path) -> None:
    projector = LinearProjector(4, 4)
    projector.fingerprint = FINGERPRINT.model_copy(update={"model": "llava-hf/llava-1.5-7b-hf"})
    rows = {row: {"mean": 0.25, "error": 0.0625, "n": 8} for row in ("aim", "start")}
    projector.summary = {"verdict": "better than its start by {{ 1 }}", "held_out": {"kl": rows, "loss": rows}}
    projector.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "base_model: llava-hf/llava-1.5-7b-hf\n" in card
    assert "\nBetter than its start by {{ 1 }}.\n" in card
    assert "\n| aim | 0.250 ± 0.062 (n=8) | 0.250 ± 0.062 (n=8) |\n" in card
    projector.summary = {
        "held_out": {
            "names": {"aim": {"mean": 1.0, "error": math.nan, "n": 2}, "start": {"mean": 0.0, "error": None, "n": 2}},
            "kl": {"aim": {"mean": math.nan, "error": None, "n": 0}, "start": {"mean": 0.5, "error": 0.0, "n": 2}},
        }
    }
    projector.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "\n| aim | 1.000 (n=2) |  |\n" in card
    assert "\n| start | 0.000 (n=2) | 0.500 ± 0.000 (n=2) |\n" in card
    for held_out in (
        None,
        {},
        {"aim": 3},
        {"aim": {"mean": 1}},
        [1],
        {"kl": {"aim": {"mean": "x", "error": 0, "n": 1}}},
    ):
        projector.summary = {"held_out": held_out}
        projector.save_pretrained(tmp_path)
        assert "on held-out episodes" not in (tmp_path / "README.md").read_text()
    assert "base_model" not in str(saved(tmp_path).generate_model_card())


def test_saving_again_replaces_the_files(tmp_path: Path) -> None:
    saved(tmp_path, LinearProjector)
    saved(tmp_path, CarrierProjector)
    assert isinstance(Projector.from_pretrained(tmp_path), CarrierProjector)


def test_a_projector_without_a_backbone_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="belongs to no backbone"):
        LinearProjector(4, 4).save_pretrained(tmp_path)


@settings(max_examples=40, deadline=None)
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
        ({"format_version": 2}, "install a newer aim-icl"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"surprise": 1}, "surprise"),
        ({"hidden_size": 8}, "does not hold"),
        ({"layers": []}, "one or more"),
        ({"layers": [0, 3]}, "does not hold"),
        ({"layers": "last"}, "layers"),
        ({"layers": [-1] * 2000}, "layers"),
        ({"kind": "r" * 100_000}, "kind"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 10**9, "embedding_size": 10**9}, "does not hold"),
        ({"hidden_size": 10**18, "embedding_size": 10**18}, "options"),
        ({"hidden_size": 10**30}, "hidden_size|options"),
        ({"kind": "attention", "options": {"heads": 1, "inner": 10**12}}, "does not hold"),
        ({"options": {"heads": 3}}, "no option named 'heads'"),
        ({"kind": "attention", "options": {"head": 3}}, "Did you mean 'heads'"),
        ({"kind": "attention", "options": {"heads": 3}}, "multiple"),
        ({"kind": "attention", "options": {"heads": "many"}}, "heads"),
    ],
)
def test_a_malformed_config_is_explained(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    saved(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(CorruptArtifactError, match=message):
        Projector.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"kind": "resid',
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"training": {"loss": NaN}}',
        b'{"training": {"loss": 1e999}}',
        b'{"kind": "\\ud83d"}',
        b'{"hidden_size": ' + b"9" * 5000 + b"}",
        b" " * 2**23,
    ],
)
def test_a_cut_config_is_explained(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path)
    (tmp_path / "projector_config.json").write_bytes(content)
    with pytest.raises(CorruptArtifactError, match=r"projector_config\.json"):
        Projector.from_pretrained(tmp_path)


def damaged_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, with hashes that agree."""
    path = folder / "projector.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    data = safetensors.torch.save(tensors)
    path.write_bytes(data)
    rewritten(folder, {"weights_sha256": hashlib.sha256(data).hexdigest()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["weight"].fill_(math.nan), "'weight' holds NaN or infinity"),
        (lambda t: t["weight"].__setitem__((1, 1), -math.inf), "'weight' holds NaN or infinity"),
        (lambda t: t.update(weight=t["weight"].double() * 1e300), "'weight' holds NaN or infinity"),
        (lambda t: t.update(weight=t["weight"] > 0), r"'weight' holds torch\.bool"),
        (lambda t: t.update(weight=t["weight"].int()), r"'weight' holds torch\.int32"),
        (lambda t: t.update(weight=t["weight"].to(torch.complex64)), r"'weight' holds torch\.complex64"),
        (lambda t: t.update(weight=t["weight"].to(torch.float8_e4m3fn)), r"'weight' holds torch\.float8"),
        (lambda t: t.update(weight=t["weight"][:3].clone()), r"'weight' has the shape \(3, 4\), expected \(4, 4\)"),
        (lambda t: t.pop("weight"), "'weight' is missing"),
        (lambda t: t.update(more=torch.zeros(2)), "'more' is not one of its"),
    ],
)
def test_weights_that_are_not_the_projectors_are_refused(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    saved(tmp_path, CarrierProjector)
    damaged_weights(tmp_path, change)
    with pytest.raises(CorruptArtifactError, match=message):
        Projector.from_pretrained(tmp_path)


def test_weights_in_half_precision_load(tmp_path: Path) -> None:
    projector = saved(tmp_path, CarrierProjector)
    damaged_weights(tmp_path, lambda t: t.update(weight=t["weight"].bfloat16()))
    assert torch.equal(Projector.from_pretrained(tmp_path).weight, projector.weight.bfloat16().float())


@pytest.mark.parametrize("length", [2**20 + 1, 2**40, 2**64 - 1])
def test_a_huge_header_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    saved(tmp_path)
    data = length.to_bytes(8, "little") + b" " * (2**20 - 100)
    (tmp_path / "projector.safetensors").write_bytes(data)
    rewritten(tmp_path, {"weights_sha256": hashlib.sha256(data).hexdigest()})
    with pytest.raises(CorruptArtifactError, match="header"):
        Projector.from_pretrained(tmp_path)


def test_a_file_larger_than_its_projector_is_not_read(tmp_path: Path) -> None:
    saved(tmp_path)
    for name in ("projector.safetensors", "projector_config.json"):
        whole = (tmp_path / name).read_bytes()
        os.truncate(tmp_path / name, 2**40)  # sparse
        with pytest.raises(CorruptArtifactError, match="1,099,511,627,776 bytes; expected at most"):
            Projector.from_pretrained(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "projector_config.json").unlink()
    os.mkfifo(tmp_path / "projector_config.json")
    with pytest.raises(ArtifactNotFoundError, match="not a projector folder"):
        Projector.from_pretrained(tmp_path)


def outcome(folder: Path) -> object:
    """What a projector is, or the refusal."""
    try:
        loaded = Projector.from_pretrained(folder)
    except ArtifactError as error:
        str(error).encode()
        return None
    return loaded.kind, loaded.identity, loaded.fingerprint, loaded.summary


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object]:
    folder = tmp_path_factory.mktemp("whole")
    saved(folder, CarrierProjector, summary={"steps": 3, "note": "\u00e9"}, layers=(0, -1), place="before")
    return folder, outcome(folder)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_an_altered_folder_is_the_same_projector_or_refused(whole: tuple[Path, object], data: st.DataObject) -> None:
    folder, same = whole
    assert same is not None
    path = folder / data.draw(st.sampled_from(["projector_config.json", "projector.safetensors", "README.md"]))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(place, min(len(content), place + 8)))
    try:
        path.write_bytes(content[:place] + data.draw(st.binary(max_size=8)) + content[end:])
        assert outcome(folder) in (same, None)
    finally:
        path.write_bytes(content)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@settings(max_examples=300, deadline=None)
@given(data=st.data(), value=JSON)
def test_a_configuration_of_any_content_is_a_projector_or_refused(
    whole: tuple[Path, object], data: st.DataObject, value: object
) -> None:
    """With hashes that agree, as an enemy would write it."""
    folder, _ = whole
    path = folder / "projector_config.json"
    content = path.read_bytes()
    config = json.loads(content)
    inside = data.draw(st.sampled_from([config, config["fingerprint"], config["options"], config["training"]]))
    name = data.draw(st.sampled_from(list(inside)) | st.text(max_size=8))
    try:
        inside[name] = value
        rewritten(folder, config)
        outcome(folder)
    finally:
        path.write_bytes(content)


def test_what_cannot_be_kept_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    projector = LinearProjector(4, 4)
    projector.fingerprint = FINGERPRINT
    projector.summary = {"note": "\ud83d"}
    with pytest.raises(ArtifactError, match="JSON"):
        projector.save_pretrained(tmp_path)
    projector.summary = {"loss": math.nan}
    projector.save_pretrained(tmp_path)
    assert Projector.from_pretrained(tmp_path).summary == {"loss": None}
    assert '{"loss":null}' in (tmp_path / "README.md").read_text()
    torch.nn.init.constant_(next(projector.parameters()), math.inf)
    with pytest.raises(ArtifactError, match="NaN or infinity"):
        projector.save_pretrained(tmp_path)


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
    same_name = FINGERPRINT.model_copy(update={"weights_hash": "x"})
    with pytest.raises(FingerprintError, match="the same name, but other contents"):
        projector.check_backbone(same_name)
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
