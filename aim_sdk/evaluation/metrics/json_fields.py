"""The fields of a JSON object, one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aim_sdk.errors import InputError
from aim_sdk.evaluation.items import Answered, Item
from aim_sdk.evaluation.metrics.metric import Metric


class JsonFields(Metric):
    """Share of an object's fields that have the reference's value; of several references the best counts.

    The fields are those of the answer and of the reference together, so a field that should not be there counts as a
    wrong one. An answer that is no JSON object has none right.
    """

    name = "json_fields"
    label = "fields right, %"
    closed = True

    def check(self, items: Sequence[Item]) -> None:
        """Refuse references that are not JSON objects with at least one field."""
        for item in items:
            for answer in item.answers:
                if not _object(answer):
                    raise InputError(
                        f"json_fields: the answer {answer[:80]!r} of {item.id!r} is not a JSON object with fields. "
                        "Next: score it by exact_match."
                    )

    def per_item(self, answered: Sequence[Answered]) -> list[float]:
        """Return 0 to 100 for each answer."""
        return [100.0 * max(_share(_object(a.text), _object(answer)) for answer in a.item.answers) for a in answered]


def _share(found: dict[str, Any], expected: dict[str, Any]) -> float:
    names = {*found, *expected}
    same = (name in found and name in expected and _same(found[name], expected[name]) for name in names)
    return sum(same) / len(names) if names else 0.0


def _same(found: object, expected: object) -> bool:
    """JSON's true is not 1."""
    return json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


def _object(text: str) -> dict[str, Any]:
    """The object of a text; empty if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
