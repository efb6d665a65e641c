"""A run's settings: what a file and overrides say, and what is said of those that cannot be."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from aim_sdk.errors import InputError
from aim_sdk.training import TrainingConfig

LEAST: dict[str, Any] = {"output": "run", "backend": "pocket", "corpus": {"path": "data"}}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "train.yaml"


def load(path: Path, *overrides: str, **changes: Any) -> TrainingConfig:
    path.write_text(yaml.safe_dump(LEAST | changes), encoding="utf-8")
    return TrainingConfig.load(path, overrides)


def refused(path: Path, *overrides: str, **changes: Any) -> str:
    with pytest.raises(InputError) as raised:
        load(path, *overrides, **changes)
    return str(raised.value)


# --- what is taken


def test_what_is_not_told_has_defaults(path: Path) -> None:
    config = load(path)
    assert config == TrainingConfig(**LEAST)
    assert (config.output, config.model, config.seed) == (Path("run"), None, 0)
    assert config.episodes.shots == (1, 4)


def test_a_file_says_all_of_it(path: Path) -> None:
    config = load(
        path,
        steps=7,
        projector={"kind": "linear", "layers": [0, -1], "options": {"size": 3}},
        episodes={"shots": [2, 3], "labels": 0.5},
        optimizer={"learning_rate": 0.1, "betas": [0.5, 0.6]},
        evaluation={"corpus": {"path": "other", "min_pairs": 3}},
        prompt_format=None,
    )
    assert config.projector.layers == (0, -1)
    assert config.projector.options == {"size": 3}
    assert (config.episodes.shots, config.episodes.labels) == ((2, 3), 0.5)
    assert config.optimizer.betas == (0.5, 0.6)
    assert config.evaluation.corpus is not None
    assert config.evaluation.corpus.min_pairs == 3
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("steps=7", {"steps": 7}),
        (" steps =7", {"steps": 7}),
        ("optimizer.learning_rate=1e-4", {"optimizer": {"learning_rate": 1e-4}}),
        ("episodes.shots=[2, 3]", {"episodes": {"shots": [2, 3]}}),
        ("corpus.path=a=b", {"corpus": {"path": "a=b"}}),
        ("evaluation.corpus.path=other", {"evaluation": {"corpus": {"path": "other"}}}),
        ("evaluation={every: 5}", {"evaluation": {"every": 5}}),
        ("projector.options.hidden.size=3", {"projector": {"options": {"hidden": {"size": 3}}}}),
        ("model=", {}),
        ("shard=true", {"shard": True}),
    ],
)
def test_overrides_are_as_if_the_file_said_so(path: Path, override: str, expected: dict[str, Any]) -> None:
    assert load(path, override) == TrainingConfig.model_validate(LEAST | expected)


def test_overrides_change_their_setting_only_and_the_last_counts(path: Path) -> None:
    config = load(path, "episodes.labels=0.1", "steps=3", "episodes.labels=0.2", episodes={"shots": [3, 3]})
    assert (config.episodes.labels, config.episodes.shots, config.steps) == (0.2, (3, 3), 3)
    whole = load(path, "episodes.labels=0.1", "episodes={targets: 2}")
    assert (whole.episodes.labels, whole.episodes.targets) == (0.7, 2)


@pytest.mark.parametrize("group", [None, {}])
def test_overrides_reach_into_a_group_that_the_file_leaves_empty(path: Path, group: Any) -> None:
    """``optimizer:`` with nothing after it."""
    assert load(path, "optimizer.weight_decay=0.5", optimizer=group).optimizer.weight_decay == 0.5
    config = load(path, "evaluation.corpus.path=other", evaluation={"corpus": group or None})
    assert config.evaluation.corpus is not None
    assert config.evaluation.corpus.path == Path("other")


# --- what is refused


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stepz=3", "stepz: no such setting. Did you mean 'steps'?"),
        ("optimizer.learning_rat=3", "optimizer.learning_rat: no such setting. Did you mean 'learning_rate'"),
        ("corpus.min_similarty=3", "corpus.min_similarty: no such setting. Did you mean 'min_similarity'"),
        ("evaluation.corpus={path: x, max_image: 3}", "evaluation.corpus.max_image: no such setting. Did you mean 'ma"),
        ("evaluation.evry=3", "Expected: corpus, episodes, every, held_out."),
        ("episodes.zzzzzzzz=3", "episodes.zzzzzzzz: no such setting. Expected: label"),
        ("optimiser.clip=3", "optimiser: no such setting. Did you mean 'optimizer'"),
    ],
)
def test_a_name_that_does_not_exist_is_said_with_the_nearest(path: Path, override: str, said: str) -> None:
    assert said in refused(path, override)


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("steps=many", "steps: "),
        ("steps=-1", "steps: "),
        ("steps=1.5", "steps: "),
        ("steps=[1]", "steps: "),
        ("steps=null", "steps: "),
        ("batch_size={a: 1}", "batch_size: "),
        ("seed=-1", "seed: "),
        ("optimizer=3", "optimizer: "),
        ("corpus=null", "corpus: "),
        ("corpus.format=parquet", "corpus.format: "),
        ("optimizer.betas=[0.9]", "optimizer.betas"),
        ("projector.layers=[last]", "projector.layers.0: "),
        ("episodes.shots=[3, 2]", "episodes: "),
        ("episodes.shots=[0, 2]", "episodes: "),
        ("evaluation.held_out=1", "evaluation.held_out: "),
        ("corpus.min_pairs=9", "corpus: "),
        ("prompt_format=chat", "prompt_format"),
    ],
)
def test_a_value_that_cannot_be_is_said_with_its_place(path: Path, override: str, place: str) -> None:
    message = refused(path, override)
    assert message.startswith(f"{path}:")
    assert f"\n  {place}" in message
    assert "pydantic" not in message


def test_shares_are_together_at_most_one(path: Path) -> None:
    assert "together at most 1" in refused(path, "episodes.labels=0.6", "episodes.styles=0.5")
    load(path, "episodes.labels=0.5", "episodes.styles=0.5")


def test_all_that_is_wrong_is_said_at_once(path: Path) -> None:
    message = refused(path, "stepz=1", "seed=x", "optimizer.clip=0")
    assert len(message.splitlines()) == 4
    assert all(f"\n  {name}: " in message for name in ("stepz", "seed", "optimizer.clip"))


@pytest.mark.parametrize("missing", list(LEAST))
def test_what_must_be_told_is_named(path: Path, missing: str) -> None:
    path.write_text(yaml.safe_dump({name: value for name, value in LEAST.items() if name != missing}))
    with pytest.raises(InputError, match=f"{missing}: Field required"):
        TrainingConfig.load(path)


@pytest.mark.parametrize("override", ["steps", "=3", " =3", "", "steps:3"])
def test_an_override_without_name_or_value_is_refused(path: Path, override: str) -> None:
    assert "expected name=value" in refused(path, override)


@pytest.mark.parametrize(("override", "advice"), [("--steps", "steps=VALUE"), ("--batch-size=3", "batch_size=3")])
def test_an_option_is_shown_as_a_setting(path: Path, override: str, advice: str) -> None:
    assert f"Next: write {advice}" in refused(path, override)


@pytest.mark.parametrize("override", ["backend.steps=3", "steps.x=3", "corpus.path.steps=3", "output.a.b=3"])
def test_an_override_of_what_is_no_group_is_refused(path: Path, override: str) -> None:
    message = refused(path, override, steps=5)
    assert f"override '{override}'" in message
    assert "has no settings of its own" in message


@pytest.mark.parametrize(
    "value", ["[1", "{a: ", "'", "!!python/object:x {}", "2001-99-99", "!!int x", "!!bool x", "0x_"]
)
def test_a_value_that_is_not_yaml_is_refused(path: Path, value: str) -> None:
    assert "the value is not YAML" in refused(path, f"steps={value}")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "expected settings by name"),
        (b"- a\n- b\n", "expected settings by name"),
        (b"just words", "expected settings by name"),
        (b"a: [", "cannot be read as YAML"),
        (b"a: b: c", "cannot be read as YAML"),
        (b"\xff\xfe\xfa", "cannot be read as YAML"),
        (b"output: \x00", "cannot be read as YAML"),
        (b"output: 2001-99-99", "cannot be read as YAML"),
        (b"!!python/object/apply:os.getcwd []", "cannot be read as YAML"),
        (b"1: 2", "1: "),
        (b"[1]: 2", "cannot be read as YAML"),
    ],
)
def test_what_is_no_file_of_settings_is_said(path: Path, data: bytes, said: str) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError) as raised:
        TrainingConfig.load(path)
    assert str(path) in str(raised.value)
    assert said in str(raised.value)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.yaml: no such file"):
        TrainingConfig.load(tmp_path / "train.yaml")
    with pytest.raises(InputError, match="cannot be read as YAML"):
        TrainingConfig.load(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([*TrainingConfig.model_fields, "path", "shots"]) | st.text(max_size=6)


@settings(deadline=None)
@given(raw=st.dictionaries(NAMES, VALUES, max_size=4), name=st.lists(NAMES, max_size=3), value=VALUES)
def test_whatever_is_given_is_taken_or_refused(path: Path, raw: dict[str, Any], name: list[str], value: Any) -> None:
    path.write_text(yaml.safe_dump(LEAST | raw), encoding="utf-8")
    with suppress(InputError):
        TrainingConfig.load(path, [f"{'.'.join(name)}={yaml.safe_dump(value, default_flow_style=True)}"])


@settings(deadline=None, max_examples=200)
@given(
    data=st.binary(max_size=30) | st.text("ab:-[]{}!&*#|>'\"%@`?, \n01._xe~", max_size=30).map(str.encode),
    override=st.text(max_size=20) | st.text("ab=:-[]{}!&*01._x", max_size=20).map("steps=".__add__),
)
def test_whatever_is_written_is_taken_or_refused(path: Path, data: bytes, override: str) -> None:
    path.write_bytes(data)
    for overrides in ([], [override]):
        with suppress(InputError):
            TrainingConfig.load(path, overrides)
    with suppress(InputError):
        load(path, override)
