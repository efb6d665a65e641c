"""What a backend says of a prompt before it is computed is what the prompt takes."""

from __future__ import annotations

from aim_sdk.backend.capabilities import ForeseesCost, Interleaves, capability, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.config import PromptFormat
from aim_sdk.testing.compare import require
from aim_sdk.testing.kit import check, needs
from aim_sdk.testing.samples import QUERIES, SHOTS
from aim_sdk.types import Context, Demonstration


@check
@needs(ForeseesCost)
def check_cost_is_foreseen(backend: Backend) -> None:
    """The tokens that `footprint` counts are those of the prompt: zero-shot, after texts alone, and interleaved.

    Catches a forgotten BOS or system text, visual tokens without those that frame an image, an image of another size
    that costs the same, and fused tokens that are not as many as the text's.
    """
    footprint, shown = capability(backend, ForeseesCost).footprint, SHOTS[:3]
    for form in (backend.default_format, PromptFormat.plain("{image} Q: {text}\nA: {answer}\n")):
        fused = backend.reader.text_only(shown, prompt_format=form)
        lengths = footprint.text_tokens(shown, prompt_format=form)
        require(
            lengths == list(map(len, fused)),
            f"text tokens of demonstrations: {lengths} foreseen, but they are {list(map(len, fused))} ({form})",
        )
        contexts: dict[str, tuple[Context, list[Demonstration], int]] = {
            "zero-shot": ([], [], 0),
            "after texts": (fused, [], sum(lengths)),
        }
        if find(backend, Interleaves) is not None:
            contexts["interleaved"] = (shown, list(shown), 0)
        for query in QUERIES:
            for name, (context, images, more) in contexts.items():
                (made,) = backend.injector.generate([query], [context], prompt_format=form, max_new_tokens=1)
                found = footprint.prompt_tokens(query, images, prompt_format=form) + more
                require(
                    found == made.prompt_tokens,
                    f"{name}: {found} tokens foreseen, but the prompt of {query.text!r} has {made.prompt_tokens}",
                )
    few, many = footprint.kv_bytes(10, 1), footprint.kv_bytes(20, 1)
    require(few is None or many is None or few <= many, f"KV bytes of 10 tokens {few}, of 20 tokens {many}")
