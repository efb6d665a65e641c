"""The settings of a training run: what a YAML file and the command line's overrides hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from aim_sdk.config import PromptFormat
from aim_sdk.files.settings import Settings
from aim_sdk.files.yaml_files import read_yaml
from aim_sdk.training.corpora.config import CorpusConfig


def _listed(layers: Any) -> Any:
    """Layers in a form that needs no quoting in a shell, without brackets: ``24,-1``, or one number."""
    if isinstance(layers, str) and all(part.strip().lstrip("+-").isdecimal() for part in layers.split(",")):
        return [int(part) for part in layers.split(",")]
    return [layers] if type(layers) is int else layers


class ProjectorSettings(Settings):
    """Which projector is trained."""

    kind: str = Field(default="carrier", description="see aim_sdk.projectors.KINDS")
    layers: Annotated[tuple[int, ...], BeforeValidator(_listed)] = Field(
        default=(-1,), description="the layers it reads: 0 is the input of the first, -1 the last; [24, -1] two of them"
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="other options of the kind: {place: before}, {heads: 8, inner: 512}"
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        description="matrices learn a change of this rank, which is added to their start; None: every element learns",
    )
    fit: int = Field(
        default=1024,
        ge=0,
        description="readings that a new carrier with layers before the last one is fitted to before the first step, "
        "by least squares: it then carries what an image looks like, too; 0: none",
    )
    start: Path | None = Field(
        default=None,
        description="a trained projector's folder or hub id: this is a new run (its own steps, rates and order of the "
        "corpus) that begins with those weights; kind, layers and options are the projector's own",
    )


class ObjectiveSettings(Settings):
    """What is minimised; a name alone stands for ``{weights: {name: 1}}``."""

    weights: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=lambda: {"distill": 1.0},
        min_length=1,
        description="objectives by name, each with its weight in the sum: see aim_sdk.training.OBJECTIVES",
    )
    teacher: str | None = Field(
        default=None,
        description="whose answers `distill` learns and the evaluation compares with: see aim_sdk.training.TEACHERS; "
        "None: interleaved where the backbone takes enough images in one prompt, else captions",
    )
    top_tokens: int = Field(
        default=256,
        ge=0,
        description="of the teacher's distribution over the vocabulary, the likeliest tokens that are told apart; all "
        "others count as one. These are kept on disk for later epochs. 0: the whole distribution, computed each time",
    )

    @model_validator(mode="after")
    def _weights_weigh(self) -> Self:
        (name, weight), *others = self.weights.items()
        if not others and weight != 1:
            raise ValueError(
                f"weights {self.weights}: the weight of one objective alone changes nothing. Expected 1, or others "
                f"next to it: {{distill: 1, {name}: {weight:g}}}"
            )
        return self


def _named(objective: Any) -> Any:
    return {"weights": {objective: 1.0}} if isinstance(objective, str) else objective


class EpisodeSettings(Settings):
    """How a document becomes episodes: k demonstrations, a query, and the text that is learnt."""

    shots: tuple[int, int] = Field(default=(1, 4), description="the fewest and the most demonstrations of an episode")
    targets: int = Field(
        default=1, ge=1, description="later pairs of a document that are learnt; their demonstrations are read once"
    )
    text: str = Field(default="", description="the text for an image that has none of its own")
    max_characters: int = Field(default=400, ge=16, description="longer texts and answers are cut at a sentence's end")
    labels: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="share of episodes that give a document's images new names, which only the demonstrations show",
    )
    relatives: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share of those that, where a page has several pictures of a thing (by a word of their texts that "
        "hardly any other page has), ask about one that is not shown; all others ask about another view of a picture",
    )
    label_words: Path | None = Field(
        default=None, description="words to draw half of the names from, one per line; the others are made up"
    )
    styles: float = Field(
        default=0.1, ge=0, le=1, description="share of episodes whose answers are all written in one drawn style"
    )

    @model_validator(mode="after")
    def _shots_in_order(self) -> Self:
        if not 1 <= self.shots[0] <= self.shots[1]:
            raise ValueError(f"shots {list(self.shots)}: expected [fewest, most] with 1 <= fewest <= most")
        if self.labels + self.styles > 1:
            raise ValueError(
                f"labels {self.labels} and styles {self.styles} are shares of all episodes: together at most 1. "
                f"Next: episodes.styles={max(0.0, 1 - self.labels):g}, for example"
            )
        return self


_Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class OptimizerSettings(Settings):
    """Adam with a warm-up and a cosine, and an average of the weights, which is what is handed out."""

    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="None: what suits the kind of projector; some of its parameters learn faster or slower than that",
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        allow_inf_nan=False,
        description="per unit of learning rate, towards the start's weights and not towards zero",
    )
    betas: tuple[_Decay, _Decay] = Field(
        default=(0.9, 0.98), description="Adam's decay rates of the averages of the gradient and of its square"
    )
    average: float = Field(
        default=0.98,
        ge=0,
        lt=1,
        description="decay rate of the exponential moving average of the weights, which is evaluated and saved; "
        "0: the last step's weights",
    )
    warm_up: float = Field(default=0.03, ge=0, le=1, description="share of the steps over which the rate rises")
    final_rate: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="the last step's rate, as a share of learning_rate; 1: the rate stays constant, and a finished run "
        "can be extended",
    )
    clip: float = Field(default=1.0, gt=0, description="the largest norm of a step's gradient")


class EvaluationSettings(Settings):
    """What is measured on documents that are never trained on."""

    every: int = Field(default=200, ge=0, description="steps between two evaluations; 0: none")
    episodes: int = Field(
        default=128,
        ge=1,
        description="the most held-out episodes of one evaluation: half of them new names, half the pages' own texts",
    )
    held_out: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the documents that is held out if no corpus is named; None: 0.02, or, in a corpus so "
        "small that this gives fewer than 16 episodes, the first of 0.05, 0.1 and 0.2 that gives 16",
    )
    corpus: CorpusConfig | None = Field(default=None, description="a separate corpus for evaluation")


class TrainingConfig(Settings):
    """One training run."""

    output: Path = Field(description="the run's folder: checkpoints, logs, plot, and the trained projector")
    backend: str = Field(description="a name, as `aim-icl backends list` shows it")
    model: str | None = Field(default=None, description="a hub id or a folder; None: the backend's default")
    backend_options: dict[str, Any] = Field(default_factory=dict, description="passed to the backend")
    device: str | None = Field(default=None, description="None: a GPU if there is one")
    dtype: str | None = Field(default=None, description="the backbone's: bfloat16, float32, ...; None: its default")
    prompt_format: PromptFormat | None = Field(default=None, description="None: the backend's default")
    projector: ProjectorSettings = Field(default=ProjectorSettings(), description="what is trained")
    corpus: CorpusConfig = Field(description="what it is trained on")
    episodes: EpisodeSettings = Field(default=EpisodeSettings(), description="how documents become episodes")
    objective: Annotated[ObjectiveSettings, BeforeValidator(_named)] = Field(
        default=ObjectiveSettings(), description="what is minimised: distill, lm, or {weights: {distill: 1, lm: 0.1}}"
    )
    optimizer: OptimizerSettings = Field(default=OptimizerSettings(), description="how a step is made")
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), description="what is measured during training")
    steps: int = Field(
        default=1000,
        ge=0,
        description="optimizer steps; a larger number extends a finished run if final_rate is 1; 0: the projector is "
        "fitted (projector.fit) and nothing else",
    )
    batch_size: int = Field(default=8, ge=1, description="episodes of one forward")
    batches_per_step: int = Field(
        default=1,
        ge=1,
        description="forwards whose gradients one step sums, over all processes; a multiple of their number",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="for the projector's first weights, the corpus's order and the episodes"
    )
    workers: int = Field(default=1, ge=0, description="processes that read the corpus; 0: no separate one")
    reading_tokens: int = Field(default=4096, ge=1, description="positions of one forward of the reader")
    reading_cache_gb: float = Field(
        default=10.0, ge=0, description="disk space for readings, which never change: later epochs load them from there"
    )
    recompute_activations: bool = Field(default=False, description="less memory, about a third more time")
    shard: bool = Field(default=False, description="spread the backbone's layers over the processes (FSDP2)")
    checkpoint_every: int = Field(default=200, ge=1, description="steps")
    keep_checkpoints: int = Field(default=2, ge=1, description="older ones are deleted")
    log_every: int = Field(default=10, ge=1, description="steps")

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a YAML file; ``overrides`` are ``a.b=value``, their values in YAML.

        Raises:
            InputError: the file or an override is not as expected; the message says where.
        """
        return read_yaml(path, cls, overrides)
