"""What prompts would take, before anything is computed: tokens, images, bytes, and whether they fit."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from aim_sdk.support.numbers import byte_count
from aim_sdk.types import Mode


class PromptCost(BaseModel):
    """What a prompt of one mode takes with some shots."""

    model_config = ConfigDict(frozen=True)

    mode: Mode
    shots: int
    tokens: int | None = Field(default=None, description="positions of the longest prompt; none if there is no prompt")
    images: int = Field(description="that enter the prompt, the query's too")
    kv_bytes: int | None = Field(default=None, description="of the keys and values of that prompt; none if not known")
    memory_bytes: int | None = Field(
        default=None,
        description="of weights that are not loaded yet, and of the keys and values of a batch with its answers",
    )
    fits_context: bool | None = Field(
        default=None, description="with the longest answer; none if the model has no known limit"
    )
    fits_memory: bool | None = Field(default=None, description="in what is free now; none if either is not known")
    problem: str = Field(default="", description="why there is no such prompt")

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None if that is not known."""
        if self.problem or self.fits_context is False or self.fits_memory is False:
            return False
        return None if None in (self.fits_context, self.fits_memory) else True

    @property
    def verdict(self) -> str:
        """Whether it fits, in a word or two."""
        if self.problem:
            return "no such prompt"
        too = [name for name, fits in (("context", self.fits_context), ("memory", self.fits_memory)) if fits is False]
        return f"no: {', '.join(too)}" if too else "yes" if self.fits else "not known"


class Cost(BaseModel):
    """What prompts would take with one model; nothing was computed for it. Bytes are bytes, tokens are positions."""

    model_config = ConfigDict(frozen=True)

    backend: str
    model: str
    device: str
    dtype: str
    context_length: int | None
    weights_bytes: int | None = Field(description="of the model in memory")
    weights_loaded: bool = Field(description="whether they are there already")
    free_bytes: int | None = Field(description="of the device, now")
    batch_size: int
    max_new_tokens: int
    counted_on: str = Field(description="which demonstrations and query were counted")
    fused_tokens: int | None = Field(description="of the longest demonstration")
    bank_bytes_each: int | None = Field(description="of the longest demonstration's numbers in a bank")
    bank_bytes: int | None = Field(description="of all demonstrations' numbers in a bank, if they were named")
    prompts: tuple[PromptCost, ...]
    notes: tuple[str, ...] = Field(description="what is not counted")

    @property
    def line(self) -> str:
        """One line about the last prompt, the one with the most shots."""
        if not self.prompts:
            return "cost: nothing to count."
        prompt = self.prompts[-1]
        what = prompt.mode if prompt.mode == "zero-shot" else f"{prompt.mode}, {so_many(prompt.shots, 'shot')}"
        if prompt.problem:
            return f"cost: {what}: {prompt.problem}"
        limit = "" if self.context_length is None else f" of {self.context_length:,}"
        parts = [f"up to {prompt.tokens:,}{limit} tokens and {so_many(prompt.images, 'image')} per prompt"]
        if prompt.kv_bytes is not None:
            parts.append(f"KV {byte_count(prompt.kv_bytes)} x {self.batch_size}")
        if self.free_bytes is not None:
            parts.append(f"{byte_count(self.free_bytes)} free on {self.device}")
        if prompt.mode == "aim" and self.bank_bytes_each is not None:
            parts.append(f"bank {byte_count(self.bank_bytes_each)} per demonstration")
        return f"cost: {what}: {', '.join(parts)}; fits: {prompt.verdict}."


def not_known(error: Exception) -> str:
    """The line of a command that is about to start, where its cost cannot be counted."""
    return f"cost: not known ({next(iter(str(error).splitlines()), type(error).__name__)})"


def so_many(count: int, one: str) -> str:
    """A number of things: ``"1 image"``, ``"1,024 images"``."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"
