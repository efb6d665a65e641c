"""Counts what prompts would take, on the longest demonstrations and the longest query of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar, cast

from aim_sdk.backend.capabilities import ForeseesCost
from aim_sdk.backend.footprint import Footprint
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.errors import CapabilityError, InputError, unknown
from aim_sdk.injection.cost import Cost, PromptCost, so_many
from aim_sdk.injection.cost_sample import CostSample
from aim_sdk.support.free_memory import free_bytes
from aim_sdk.support.modes import PROMPTED
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import MODES, Demonstration, Mode, Query

T = TypeVar("T")

MOST_SHOTS: Final = 4096
COST_MODES: Final[tuple[Mode, ...]] = ("zero-shot", "aim", "interleaved")
"""What is counted where no modes are named; text-only demonstrations have as many tokens as AIM's."""
_PROMPTED: Final = tuple(mode for mode in MODES if mode in PROMPTED)
_FLOAT32: Final = 4


def cost_of(
    footprint: Footprint,
    sample: CostSample,
    shots: int | Sequence[int],
    *,
    backend: str,
    modes: Sequence[Mode] = COST_MODES,
    prompt_format: PromptFormat | None = None,
    batch_size: int = 1,
    max_new_tokens: int = 32,
    layers: int = 1,
    loaded: bool = False,
) -> Cost:
    """Count prompts of some modes with some numbers of shots.

    Args:
        footprint: of the model.
        sample: demonstrations and queries to count; the longest ones are.
        shots: numbers of demonstrations.
        backend: its name.
        modes: how they are shown.
        prompt_format: None takes the model's default.
        batch_size: prompts in memory at a time.
        max_new_tokens: of the longest answer.
        layers: of the backbone, side by side in a reading.
        loaded: the weights are in memory already.

    Raises:
        InputError: a number or a mode is wrong; a text or an image cannot be used.
    """
    pairs = _pairs(_modes(modes), _numbers(shots))
    batch_size = whole_number("batch_size", batch_size, 1)
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1)
    sizes, free = footprint.sizes, free_bytes(footprint.sizes.device)
    prompts = _Prompts(footprint, sample, prompt_format or sizes.default_format)
    room = _Room(sizes.context_length, max_new_tokens, 0 if loaded else sizes.weights_bytes, batch_size, free)
    width, pooled = sizes.embedding_size * sizes.dtype.itemsize, layers * sizes.hidden_size * _FLOAT32
    kept = [tokens * width + pooled for tokens in prompts.fused]
    return Cost(
        backend=backend,
        model=sizes.model,
        device=str(sizes.device),
        dtype=str(sizes.dtype).removeprefix("torch."),
        context_length=sizes.context_length,
        weights_bytes=sizes.weights_bytes,
        weights_loaded=loaded,
        free_bytes=free,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        counted_on=sample.told,
        fused_tokens=max(prompts.fused, default=None),
        bank_bytes_each=max(kept, default=None),
        bank_bytes=sum(kept) if sample.complete else None,
        prompts=tuple(prompts.cost(mode, number, room) for mode, number in pairs),
        notes=(
            *(["what the weights take is not known"] if sizes.weights_bytes is None and not loaded else []),
            *sizes.uncounted,
            "the memory of a forward itself (activations, the vision tower) comes on top",
        ),
    )


def footprint_of(kind: type[Backend], model: str | None, **options: Any) -> Footprint:
    """The footprint of a model that is not loaded.

    Raises:
        CapabilityError: the backend does not say what a prompt takes.
        BackendError: the model is not there, or is none of the backend's.
    """
    if not all(hasattr(kind, name) for name in ("footprint", "footprint_of")):
        raise CapabilityError(
            f"backend {kind.name!r} lacks the capability 'cost': it does not say what a prompt takes before it is "
            "computed.\nNext: ask its authors for `footprint_of` and `footprint` (Write a backend, Optional abilities)."
        )
    return cast("type[ForeseesCost]", kind).footprint_of(model, **options)


@dataclass(frozen=True, slots=True)
class _Room:
    """What a prompt must fit into."""

    context_length: int | None
    max_new_tokens: int
    to_load: int | None
    """Bytes of weights that are not in memory yet."""
    batch_size: int
    free: int | None


@dataclass(frozen=True)
class _Prompts:
    """The prompts of a sample: always its longest query, after its longest demonstrations."""

    footprint: Footprint
    sample: CostSample
    prompt_format: PromptFormat

    def cost(self, mode: Mode, shots: int, room: _Room) -> PromptCost:
        """What one takes, and whether it fits."""
        images = 1 + shots if mode == "interleaved" else 1
        if problem := self._problem(mode, images):
            return PromptCost(mode=mode, shots=shots, images=images, problem=problem)
        tokens = self._tokens(mode, shots)
        whole = self.footprint.kv_bytes(tokens + room.max_new_tokens, images)
        memory = None if whole is None or room.to_load is None else room.to_load + room.batch_size * whole
        limit = room.context_length
        return PromptCost(
            mode=mode,
            shots=shots,
            tokens=tokens,
            images=images,
            kv_bytes=self.footprint.kv_bytes(tokens, images),
            memory_bytes=memory,
            fits_context=None if limit is None else tokens + room.max_new_tokens <= limit,
            fits_memory=None if memory is None or room.free is None else memory <= room.free,
        )

    @cached_property
    def fused(self) -> list[int]:
        """Fused tokens of each demonstration, the longest first."""
        shown = self.sample.demonstrations
        found = self.footprint.text_tokens(shown, prompt_format=self.prompt_format) if shown else []
        return sorted(found, reverse=True)

    @cached_property
    def _asked(self) -> tuple[int, Query]:
        """The longest query, and its tokens without a demonstration."""
        return max(((self._prompt(query, []), query) for query in self.sample.queries), key=lambda pair: pair[0])

    @cached_property
    def _ranked(self) -> list[Demonstration]:
        """The demonstrations by what they take with their images, the longest first."""
        _, query = self._asked
        alone = [(self._prompt(query, [item]), item) for item in self.sample.demonstrations]
        return [item for _, item in sorted(alone, key=lambda pair: pair[0], reverse=True)]

    def _problem(self, mode: Mode, images: int) -> str:
        """Why there is no such prompt."""
        most = self.footprint.sizes.most_images
        if mode == "nearest":
            return "no prompt is made: the nearest demonstrations vote, and each query is read once."
        if mode != "zero-shot" and not self.fused:
            return "there are no demonstrations."
        if mode == "interleaved" and most is not None and images > most:
            return f"a prompt of this model holds {so_many(most, 'image')}."
        return ""

    def _tokens(self, mode: Mode, shots: int) -> int:
        bare, query = self._asked
        if mode == "interleaved":
            return self._prompt(query, _some(self._ranked, shots))
        return bare + sum(_some(self.fused, shots))

    def _prompt(self, query: Query, shown: Sequence[Demonstration]) -> int:
        return self.footprint.prompt_tokens(query, shown, prompt_format=self.prompt_format)


def _some(ranked: Sequence[T], count: int) -> list[T]:
    """The first ones; if there are fewer, the first again for each that is missing."""
    return [*ranked[:count], *([ranked[0]] * (count - len(ranked)) if count else [])]


def _pairs(modes: Sequence[Mode], numbers: Sequence[int]) -> list[tuple[Mode, int]]:
    """What is counted: zero-shot once, and every other mode with every number of shots."""
    zero: list[tuple[Mode, int]] = [("zero-shot", 0)] if "zero-shot" in modes or 0 in numbers else []
    return [*zero, *((mode, number) for mode in modes if mode != "zero-shot" for number in numbers if number)]


def _modes(given: Sequence[Mode]) -> list[Mode]:
    modes: list[Mode] = [cast(Mode, given)] if isinstance(given, str) else list(given)
    for mode in modes:
        if mode not in MODES:
            raise InputError(unknown("mode", str(mode), _PROMPTED))
    if not modes:
        raise InputError(f"no mode is named; expected some of {', '.join(_PROMPTED)}.")
    return list(dict.fromkeys(modes))


def _numbers(given: object) -> list[int]:
    listed = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    found = sorted({whole_number("shots", number, 0) for number in listed})
    if found and found[-1] > MOST_SHOTS:
        raise InputError(f"shots={found[-1]}: expected at most {MOST_SHOTS:,}.")
    return found
