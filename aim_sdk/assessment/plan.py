"""What an assessment asks: decided, and refused if it cannot be done, before anything is asked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aim_sdk.assessment.asking import most_shots
from aim_sdk.assessment.candidates import TRIED, Candidate, candidates
from aim_sdk.assessment.items import Item, items_of, part_of
from aim_sdk.assessment.scores import Metric, closed_set, metric_of
from aim_sdk.backend.capabilities import Interleaves, capability, why_not
from aim_sdk.errors import InputError
from aim_sdk.files.images import image_digest
from aim_sdk.injection.choices import checked_choices, folded, listed
from aim_sdk.injection.few_shot import FewShotModel
from aim_sdk.injection.given import check_mode
from aim_sdk.injection.label_notes import note_alike
from aim_sdk.selection.base import Selector
from aim_sdk.selection.registry import get_selector
from aim_sdk.support.dependencies import imported
from aim_sdk.support.numbers import whole_number
from aim_sdk.types import Demonstration, Mode

FEWEST = 8
"""Items without which no verdict can be sure: all of fewer may agree, and p is still over .05 when it is doubled."""


@dataclass(frozen=True)
class Plan:
    """What is asked."""

    items: Sequence[Item]
    choices: Sequence[str] | None
    metric: Metric
    settings: Sequence[Candidate]
    seed: int
    keys: Sequence[str]
    """Of the bank's demonstrations, in order."""
    left_out: Sequence[str]
    """Why demonstrations are not asked."""
    validation: bool
    """Whether the items are others than the bank's."""

    @property
    def answers(self) -> list[str]:
        """The right ones."""
        return [item.answer for item in self.items]


def plan_of(
    model: FewShotModel,
    validation: Iterable[Demonstration] | None,
    *,
    shots: Iterable[int],
    modes: Iterable[Mode] | None,
    selectors: Iterable[str] | None,
    choices: Iterable[str] | None,
    limit: int | None,
    seed: int,
) -> Plan:
    """Decide everything before anything is asked; see `assess`.

    Raises:
        InputError: there are too few items, or no setting to try; or an answer is not among the choices.
    """
    keys, left_out = list(model.bank), list[str]()
    limit = None if limit is None else whole_number("limit", limit, FEWEST)
    held = None if validation is None else _demonstrations(validation)
    every = items_of(model.bank, held, left_out.append)
    if len(every) < FEWEST:
        where = "bank" if held is None else "validation set"
        lost = f" that can be asked (the first reason: {left_out[0]})" if left_out else ""
        raise InputError(
            f"the {where} holds {len(every)} demonstrations{lost}; an assessment needs {FEWEST} at least, and says "
            "little below 40.\nNext: add more."
        )
    told = [entry.demonstration.answer for entry in model.bank.values()]
    named = _choices(every, told if held is None else [*told, *(one.answer for one in held)], choices)
    chosen = part_of(every, limit, seed)
    names = [_own(model.selector)] if selectors is None else _list("selectors", selectors, "'reading'")
    settings = candidates(
        _modes(model, modes, named),
        _list("shots", shots, "1, 2, 4"),
        list(dict.fromkeys(get_selector(name).name for name in names)),
        most_shots=most_shots(model, chosen),
    )
    metric = metric_of([item.answer for item in chosen], named)
    return Plan(chosen, named, metric, settings, whole_number("seed", seed, 0), keys, left_out, held is not None)


def _own(selector: Selector) -> str:
    """The name of the pipeline's own selector.

    Raises:
        InputError: a name does not say what it is: it filters or balances.
    """
    if selector.where or selector.balance is not None:
        raise InputError(
            f"the pipeline's selector is {selector!r}; a verdict keeps a selector's name alone, without `where` and "
            "`balance`.\nNext: pass selectors=['reading'], or assess a bank that holds only those demonstrations."
        )
    return selector.name


def _choices(items: Sequence[Item], told: Sequence[str], given: Iterable[str] | None) -> list[str] | None:
    """The closed set of answers: what was given or, if they are one, those that were ``told``: the bank's, the items'.

    Raises:
        InputError: all have the same answer, or an item's is not among those that were given.
    """
    right = [item.answer for item in items]
    if len(set(map(folded, right))) == 1:
        raise InputError(f"all {len(right)} items have the answer {right[0][:80]!r}: there is nothing to tell apart.")
    if given is None:
        found = closed_set(told)
    else:
        found = checked_choices(_list("choices", given, "'cat', 'dog'"))
        known = {choice.strip() for choice in found}
        if missing := list(dict.fromkeys(answer for answer in right if answer not in known)):
            count = sum(answer not in known for answer in right)
            raise InputError(
                f"choices: {count} of {len(right)} items have an answer that is no choice: {listed(missing)}.\n"
                "Next: add it to the choices, or leave the choices out."
            )
    if found is not None:
        imported("sklearn", extra="eval")  # before anything is asked
        note_alike(found, right)
    return found


def _list(name: str, given: object, example: str) -> list[Any]:
    """A list of what was given.

    Raises:
        InputError: it is no list, or an empty one.
    """
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"{name}: {type(given).__name__}; expected a list, as in [{example}].")
    found = list(given)
    if not found:
        raise InputError(f"{name}: an empty list; expected one as in [{example}], or leave it out.")
    return found


def _demonstrations(given: object) -> list[Demonstration]:
    found = _list("validation", given, "Demonstration(...)")
    for one in found:
        if not isinstance(one, Demonstration):
            raise InputError(f"validation: {type(one).__name__}; expected Demonstration objects.")
    return found


def _modes(model: FewShotModel, asked: Iterable[Mode] | None, choices: Sequence[str] | None) -> list[Mode]:
    """The modes that are tried: by default all that the backend can.

    Raises:
        InputError: an unknown mode, the control, or none that shows demonstrations.
        CapabilityError: interleaved prompting was asked for, and the backend cannot.
    """
    if asked is None:
        found = [mode for mode in TRIED if mode != "interleaved" or why_not(model.backend, Interleaves) is None]
        return [mode for mode in found if mode != "nearest" or choices is not None]
    found = list(dict.fromkeys(_list("modes", asked, "'aim', 'nearest'")))
    for mode in found:
        check_mode(mode)
    if "no-image" in found:
        raise InputError("mode 'no-image' is a control: it is asked for what turns out best, and never recommended.")
    if not set(found) - {"zero-shot"}:
        raise InputError("modes: none of them shows demonstrations. Next: add aim.")
    if "interleaved" in found:
        capability(model.backend, Interleaves)
    return found


def identity_of(model: FewShotModel, plan: Plan, *, max_new_tokens: int) -> dict[str, Any]:
    """What decides an answer besides its setting and item, as JSON has it."""
    return {
        "binding": model.encoder.binding.scope,
        "dtype": str(model.backend.dtype),
        "bank": hashlib.sha256("".join(plan.keys).encode()).hexdigest(),
        "items": [_digest(item) for item in plan.items] if plan.validation else [item.name for item in plan.items],
        "choices": plan.choices,
        "max_new_tokens": max_new_tokens,
    }


def _digest(item: Item) -> str:
    asked = [image_digest(item.query.image), item.query.text, item.query.id, item.answer]
    return hashlib.sha256(repr(asked).encode()).hexdigest()
