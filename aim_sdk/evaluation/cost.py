"""One line about what a run's longest prompts will take, before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from aim_sdk.backend.capabilities import ForeseesCost, capability
from aim_sdk.backend.plain_boxes import boxes_of
from aim_sdk.evaluation.items import Item
from aim_sdk.evaluation.pipelines import Pipelines
from aim_sdk.evaluation.plan import Plan, TaskPlan
from aim_sdk.injection.cost import Cost, not_known
from aim_sdk.injection.cost_sample import real
from aim_sdk.injection.counting import cost_of
from aim_sdk.support.modes import PROMPTED
from aim_sdk.types import Mode

_ASKED = 4
"""Queries of each task that are counted: those with the longest texts."""
_COUNTED, _LOOKED_AT = 64, 1024
"""Demonstrations of each task that are counted, and those of its pool whose texts are looked at."""


def cost_line(plan: Plan, modes: Sequence[Mode], pipelines: Pipelines) -> str:
    """Say what the longest prompt of a run takes and whether it fits; where that cannot be counted, say why.

    Args:
        plan: what is asked.
        modes: those that the backbone can be asked in.
        pipelines: the loaded backbone and its projector.
    """
    try:
        asked = [mode for mode in modes if mode in PROMPTED]
        found = [_cost(plan, work, asked, pipelines) for work in plan.works]
        counted = [(cost, prompt) for cost in found for prompt in cost.prompts if prompt.tokens is not None]
        if not counted:
            return "cost: no prompt is made."
        cost, prompt = max(counted, key=lambda pair: pair[1].tokens or 0)
        return cost.model_copy(update={"prompts": (prompt,)}).line
    except Exception as error:  # a courtesy never ends a command
        return not_known(error)


def _cost(plan: Plan, work: TaskPlan, modes: Sequence[Mode], pipelines: Pipelines) -> Cost:
    """Of one task, on its longest queries with the demonstrations that are drawn for them."""
    backend = pipelines.backend
    footprint = capability(backend, ForeseesCost).footprint
    source, shots = plan.source(work, plan.seeds[0], boxes_of(backend)), max(plan.shots)
    asked: list[Item] = sorted(work.queries, key=lambda item: len(item.text), reverse=True)[:_ASKED]
    if shots == 0 or set(modes) <= {"zero-shot"}:
        shown = []
    elif source.selector is None:
        shown = [item for row in source.choose(asked, shots) for _, item in row]
    else:
        shown = source.shown(_LOOKED_AT)
    return cost_of(
        footprint,
        real(shown, [source.query(item) for item in asked], source=work.config.name, most=_COUNTED),
        shots,
        backend=backend.name,
        modes=modes,
        prompt_format=work.prompt.format(backend.default_format),
        batch_size=plan.settings.batch_size,
        max_new_tokens=work.prompt.max_new_tokens,
        layers=len(pipelines.projector.layers),
        loaded=True,
    )
