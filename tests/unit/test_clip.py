"""The selectors that compare by CLIP, on tiny random weights; and every way of naming weights."""

import json
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from PIL import Image

from aim_sdk import Demonstration, DemonstrationBank, Query, get_selector
from aim_sdk.clip import encoder as clip
from aim_sdk.clip.encoder import ClipEncoder, shared_encoder
from aim_sdk.errors import DeviceError, ImageError, InputError, MissingDependencyError, ModelNotFoundError
from aim_sdk.selection.clip import MmicesSelector, RicesSelector, TextSelector
from tests.banks import CountingEncoder, open_bank

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
ANIMALS = ["a lynx", "two foxes", "what is that bird?", "three cats on a mat", "dog", "the whale sings", "?", ""]


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG)
    for parameter in model.parameters():  # so that the features of different things differ
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return {name: value.contiguous() for name, value in model.state_dict().items()}


def save_folder(folder: Path, seed: int) -> Path:
    folder.mkdir()
    settings = {"model_cfg": CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    safetensors.torch.save_file(weights(seed), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = save_folder(tmp_path_factory.mktemp("clip") / "zero", 0)
    kept = shared_encoder(folder, "openai", "cpu")  # loaded once for the selectors of all tests
    yield folder
    del kept


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the model that open_clip knows as ``tiny-clip``, in several formats."""
    place = tmp_path_factory.mktemp("files")
    (place / "tiny-clip.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(place / "tiny-clip.json")
    safetensors.torch.save_file(weights(0), place / "zero.safetensors")
    safetensors.torch.save_file(weights(1), place / "one.safetensors")
    torch.save({"state_dict": weights(0), "epoch": 3}, place / "zero.pt")
    return place


def pictures(count: int, seed: int) -> list[Image.Image]:
    """A few large squares each, in strong colours."""
    squares = np.random.default_rng(seed).integers(0, 2, (count, 3, 3, 3), np.uint8) * 255
    return [Image.fromarray(one).resize((40, 36), Image.Resampling.NEAREST) for one in squares]


@pytest.fixture(scope="module")
def items() -> list[Demonstration]:
    return [
        Demonstration(picture, ANIMALS[n % len(ANIMALS)], f"yes {n}", {"label": "ab"[n % 2]})
        for n, picture in enumerate(pictures(12, seed=0))
    ]


@pytest.fixture(scope="module")
def queries(items: list[Demonstration]) -> list[Query]:
    """The first one's image and text are a demonstration's."""
    texts = ("a small fox", "whales", "what is it?")
    return [
        Query(items[3].image, items[3].text),
        *(Query(picture, text) for picture, text in zip(pictures(3, seed=1), texts, strict=True)),
    ]


@pytest.fixture
def bank(items: list[Demonstration]) -> DemonstrationBank:
    bank = open_bank(CountingEncoder(), None)
    bank.add(items)
    return bank


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images or texts each call encodes."""
    calls: list[int] = []
    for name in ("images", "texts"):
        original = getattr(ClipEncoder, name)

        def counted(self: ClipEncoder, given: Sequence[object], original=original) -> np.ndarray:
            calls.append(len(given))
            return original(self, given)

        monkeypatch.setattr(ClipEncoder, name, counted)
    return calls


@pytest.fixture(scope="module")
def cosines(folder: Path, items: list[Demonstration], queries: list[Query]) -> dict[str, np.ndarray]:
    """Queries by demonstrations: of images and of texts, one at a time, straight from open_clip."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    shown = [*items, *queries]
    with torch.no_grad():
        images = torch.cat([model.encode_image(transform(item.image)[None], normalize=True) for item in shown])
        texts = torch.cat([model.encode_text(tokenizer([item.text]), normalize=True) for item in shown])
    return {
        name: (vectors[len(items) :] @ vectors[: len(items)].T).numpy()
        for name, vectors in (("image", images.double()), ("text", texts.double()))
    }


def ranked(scores: np.ndarray, places: Sequence[int]) -> list[int]:
    """The best first; equal ones as they were added."""
    return sorted(sorted(places), key=lambda n: -np.float32(scores[n]))


def others(query: int) -> list[int]:
    return [n for n in range(12) if (query, n) != (0, 3)]


@pytest.mark.parametrize(("cls", "kind"), [(RicesSelector, "image"), (TextSelector, "text")])
def test_image_and_text_selection_equal_brute_force(
    folder: Path,
    bank: DemonstrationBank,
    queries: list[Query],
    cosines: dict[str, np.ndarray],
    cls: type[RicesSelector],
    kind: str,
) -> None:
    selector, keys = cls(folder, device="cpu"), list(bank)
    np.testing.assert_allclose(selector.scores(bank.view(), queries, np.arange(12)), cosines[kind], atol=1e-5)
    assert cosines[kind].std() > 0.05, "the pictures and the texts differ"
    best = [ranked(row, others(query))[:4] for query, row in enumerate(cosines[kind])]
    assert selector.select(bank.view(), queries, 4) == [[keys[n] for n in places[::-1]] for places in best]


@pytest.mark.parametrize("prefilter", [1, 4, 100])
def test_mmices_ranks_the_nearest_images_by_their_texts(
    folder: Path, bank: DemonstrationBank, queries: list[Query], cosines: dict[str, np.ndarray], prefilter: int
) -> None:
    """The query's own demonstration is left out before the images are counted."""
    keys, expected = list(bank), []
    for query in range(len(queries)):
        order = ranked(cosines["image"][query], others(query))
        best = [*ranked(cosines["text"][query], order[:prefilter]), *order[prefilter:]][:6]
        expected.append([keys[n] for n in best[::-1]])
    assert MmicesSelector(folder, device="cpu", prefilter=prefilter).select(bank.view(), queries, 6) == expected


def test_where_and_balance_hold_for_clip_too(
    folder: Path, bank: DemonstrationBank, items: list[Demonstration], queries: list[Query]
) -> None:
    labels = {key: item.metadata["label"] for key, item in zip(bank.keys(), items, strict=True)}
    for cls in (RicesSelector, TextSelector, MmicesSelector):
        for chosen in cls(folder, device="cpu", balance="label").select(bank.view(), queries, 6):
            assert sorted(labels[key] for key in chosen) == list("aaabbb")
        for chosen in cls(folder, device="cpu", where={"label": "b"}).select(bank.view(), queries, None):
            assert {labels[key] for key in chosen} == {"b"}
    few = MmicesSelector(folder, device="cpu", prefilter=2, balance="label").select(bank.view(), queries, 6)
    assert all(sorted(labels[key] for key in chosen) == list("aaabbb") for chosen in few)


def test_demonstrations_are_encoded_once_and_queries_each_time(
    folder: Path, items: list[Demonstration], queries: list[Query], tmp_path: Path, encoded: list[int]
) -> None:
    bank = open_bank(CountingEncoder(), tmp_path / "bank")
    bank.add(items[:10])
    first = RicesSelector(folder, device="cpu").select(bank.view(), queries, 2)
    assert sorted(encoded) == [4, 10]
    encoded.clear()
    bank.close()
    bank = open_bank(CountingEncoder(), tmp_path / "bank")
    assert RicesSelector(folder, device="cpu").select(bank.view(), queries, 2) == first
    assert encoded == [4], "kept in the bank's folder"
    encoded.clear()
    bank.add(items)
    RicesSelector(folder, device="cpu").select(bank.view(), queries, 2)
    assert sorted(encoded) == [2, 4], "only those that are new"
    encoded.clear()
    MmicesSelector(folder, device="cpu").select(bank.view(), queries, 2)
    assert sorted(encoded) == [4, 4, 12], "the images of rices, and texts"
    encoded.clear()
    RicesSelector(save_folder(tmp_path / "one", 1), device="cpu").select(bank.view(), queries, 2)
    assert sorted(encoded) == [4, 12], "other weights"


def test_a_folder_a_file_and_a_tag_load_the_same_weights(
    folder: Path, files: Path, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [item.image for item in items[:3]]
    tag = {"file": str(files / "zero.safetensors"), "mean": (0.5,) * 3, "std": (0.25,) * 3, "quick_gelu": False}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", {"zero_b1": tag})
    encoders = {
        "folder": ClipEncoder(folder, device="cpu"),
        "local-dir": ClipEncoder(f"local-dir:{folder}", None, "cpu"),
        "safetensors": ClipEncoder("tiny-clip", files / "zero.safetensors", "cpu"),
        "pt": ClipEncoder("tiny-clip", str(files / "zero.pt"), "cpu"),
        "tag": ClipEncoder("tiny-clip", "Zero-B1", "cpu"),
        "other": ClipEncoder("tiny-clip", files / "one.safetensors", "cpu"),
    }
    texts = {name: encoder.texts(ANIMALS) for name, encoder in encoders.items()}
    for name in ("local-dir", "safetensors", "pt", "tag"):
        np.testing.assert_array_equal(texts[name], texts["folder"])
    assert np.abs(texts["other"] - texts["folder"]).max() > 0.1
    np.testing.assert_array_equal(encoders["tag"].images(images), encoders["folder"].images(images))
    names = {name: encoder.name for name, encoder in encoders.items()}
    assert names["folder"] == names["local-dir"]
    assert len(set(names.values())) == 5, "weights, and how they are read, are told apart"
    assert names["tag"] == "tiny-clip zero_b1"
    assert names["safetensors"].startswith("tiny-clip sha256:")


def test_a_tag_s_activation_is_used(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's weights need QuickGELU, and open_clip only warns where the model's name says otherwise."""
    for quick in (True, False):
        tag = {"file": str(files / "zero.safetensors"), "quick_gelu": quick}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-clip", {f"gelu_{quick}".lower(): tag})
        model = ClipEncoder("tiny-clip", f"gelu_{quick}", "cpu").loaded().model
        assert quick == any(type(module).__name__ == "QuickGELU" for module in model.modules())


def test_vectors_are_of_length_one_and_do_not_depend_on_the_batch(
    folder: Path, items: list[Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = RicesSelector(folder, device="cpu").encoder
    images = [item.image for item in items]
    together = encoder.images(images), encoder.texts(ANIMALS)
    monkeypatch.setattr(clip, "_IMAGES", 5)
    monkeypatch.setattr(clip, "_TEXTS", 3)
    for vectors, again in zip(together, (encoder.images(images), encoder.texts(ANIMALS)), strict=True):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(vectors, again, atol=1e-5)
    repeated = encoder.images([images[0], images[1], images[0].copy()])
    np.testing.assert_array_equal(repeated[0], repeated[2])


def test_a_long_text_is_cut(folder: Path) -> None:
    long, cut = RicesSelector(folder, device="cpu").encoder.texts(["word " * 50 + "lynx", "word " * 50 + "fox"])
    np.testing.assert_array_equal(long, cut)


def test_the_model_is_frozen(folder: Path) -> None:
    model = RicesSelector(folder, device="cpu").encoder.loaded().model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_weights_are_loaded_once_when_they_are_first_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    original = clip.load_clip
    monkeypatch.setattr(clip, "load_clip", lambda *given: loads.append(given) or original(*given))
    model = f"local-dir:{folder}"
    selectors = [RicesSelector(model, device="cpu"), MmicesSelector(model, device="cpu"), get_selector("rices")]
    assert selectors[2] is get_selector("rices")
    assert not loads
    encoder, found = selectors[0].encoder, []
    assert selectors[1].encoder is encoder, "selectors of the same weights share them"
    threads = [threading.Thread(target=lambda: found.append(encoder.texts(ANIMALS))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(found) == 8
    assert all((one == found[0]).all() for one in found)


def test_an_image_that_cannot_be_decoded_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    with pytest.raises(ImageError, match=r"torn\.jpg"):
        RicesSelector(folder, device="cpu").encoder.images([tmp_path / "torn.jpg"])


@pytest.mark.parametrize("cls", [RicesSelector, TextSelector, MmicesSelector])
@pytest.mark.parametrize("pretrained", [None, ""])
def test_random_weights_are_refused(cls: type[RicesSelector], pretrained: str | None) -> None:
    with pytest.raises(InputError, match=r"choose at random .*Expected one of: 'openai', .*'laion2b_s34b_b79k'"):
        cls(pretrained=pretrained)


@pytest.mark.parametrize(
    ("model", "pretrained", "error", "message"),
    [
        ("ViT-B32", "openai", InputError, r"unknown CLIP model 'ViT-B32'\. Did you mean 'ViT-B-32'.*\nNext: python -c"),
        ("openai/clip-vit-base-patch32", "openai", InputError, r"hf-hub:owner/name"),
        ("ViT-B/32", "laion2b", InputError, r"no weights 'laion2b' for CLIP ViT-B-32\. Did you mean 'laion2b_e16'"),
        ("ViT-B-32", "/no/such.pt", ModelNotFoundError, r"/no/such\.pt: no such file"),
        ("ViT-B-32", "weights.npz", InputError, r"no weights 'weights\.npz'"),
        ("ViT-B-32", "/", InputError, r"a folder goes to `model`"),
        ("/no/such/folder", "openai", ModelNotFoundError, r"/no/such/folder: no such folder"),
        ("local-dir:nowhere", "openai", ModelNotFoundError, r"nowhere: no such folder"),
        ("hf-hub:me/clip", "laion", InputError, r"brings its own weights"),
    ],
)
def test_what_does_not_exist_is_explained(model: str, pretrained: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RicesSelector(model, pretrained)


def test_bad_arguments_are_explained(folder: Path) -> None:
    with pytest.raises(InputError, match="prefilter=0; expected a whole number of at least 1"):
        MmicesSelector(folder, prefilter=0)
    with pytest.raises(DeviceError, match="'cuda:99'"):
        RicesSelector(folder, device="cuda:99")


def test_a_folder_that_is_not_open_clip_s_is_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no open_clip_config\.json.*a CLIP of transformers was not"):
        ClipEncoder(tmp_path)
    (tmp_path / "open_clip_config.json").write_bytes((folder / "open_clip_config.json").read_bytes())
    with pytest.raises(ModelNotFoundError, match="no weights"):
        ClipEncoder(tmp_path)
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"open_clip_model\.safetensors cannot be loaded as its weights"):
        ClipEncoder(tmp_path, device="cpu").texts(["a"])
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(InputError, match="missing 'model_cfg'"):
        ClipEncoder(tmp_path, device="cpu").texts(["a"])


def test_no_code_of_a_checkpoint_is_run(folder: Path, files: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": {"weight": Evil()}}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt cannot be loaded"):
        ClipEncoder("tiny-clip", tmp_path / "evil.pt", "cpu").texts(["a"])
    assert not (tmp_path / "ran").exists()
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(2)).save(tmp_path / "script.pt")
    with pytest.raises(InputError, match=r"script\.pt: a TorchScript archive holds code"):
        ClipEncoder("tiny-clip", tmp_path / "script.pt", "cpu").texts(["a"])
    with pytest.raises(InputError, match=r"one\.safetensors cannot be loaded as its weights"):
        ClipEncoder("ViT-B-32", files / "one.safetensors", "cpu").texts(["a"])
    asking = save_folder(tmp_path / "asking", 0)
    settings = json.loads((asking / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"trust_remote_code": True}}
    (asking / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="would run code of its own"):
        ClipEncoder(asking, device="cpu").texts(["a"])


@pytest.mark.parametrize(
    "text",
    [
        {"hf_model_name": "HERE", "hf_tokenizer_name": "HERE"},
        {"hf_tokenizer_name": "HERE"},
        {"hf_tokenizer_name": "HERE", "tokenizer_kwargs": {"trust_remote_code": True}},
        {"hf_tokenizer_name": "HERE", "tokenizer_kwargs": {"trust_remote_code": None}},
    ],
)
def test_no_code_of_a_text_tower_is_run_though_standard_input_says_yes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: dict[str, object]
) -> None:
    monkeypatch.setattr("builtins.input", lambda _="": "y")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    theirs = Path(shutil.copytree(folder, tmp_path / "theirs"))
    (theirs / "code.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w').close()\nclass C: pass\nclass T: pass\n")
    mapped = {"AutoConfig": "code.C", "AutoModel": "code.C", "AutoTokenizer": ["code.T", "code.T"]}
    (theirs / "config.json").write_text(json.dumps({"model_type": "stranger", "auto_map": mapped}))
    (theirs / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Stranger", "auto_map": mapped}))
    settings = json.loads((theirs / "open_clip_config.json").read_text())
    settings["model_cfg"]["text_cfg"] |= json.loads(json.dumps(text).replace("HERE", str(theirs)))
    (theirs / "open_clip_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="code of"):
        RicesSelector(theirs, device="cpu").encoder.texts(ANIMALS)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("model", ["ViT-B-32", "hf-hub:me/clip"])
def test_without_network_it_says_what_to_pass(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", unreachable)
    with pytest.raises(ModelNotFoundError, match=r"(?s)no route to host.*model='/path/to/folder'.*pretrained='/path"):
        ClipEncoder(model, "openai", "cpu").texts(["a"])


def test_a_repository_of_the_hub_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo_id: str, filename: str, **_: object) -> str:
        asked.append(repo_id)
        assert (folder / filename).exists()
        return str(folder / filename)

    monkeypatch.setattr(open_clip.pretrained, "hf_hub_download", download)
    there, here = ClipEncoder("hf-hub:me/clip", device="cpu"), ClipEncoder(folder, device="cpu")
    np.testing.assert_array_equal(there.texts(ANIMALS), here.texts(ANIMALS))
    assert there.name == here.name
    assert set(asked) == {"me/clip"}


def test_without_open_clip_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "aim-icl\[clip\]"'):
        ClipEncoder()
