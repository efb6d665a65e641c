"""Modes are listed once: labels, subsets and help texts hold the same ones."""

import inspect
from typing import get_args

import pytest
from typer.testing import CliRunner

from aim_sdk.cli import app
from aim_sdk.cli.eval import evaluate
from aim_sdk.support.modes import BASIC, COLOURS, LABELS, PROMPTED, READ, SEEN
from aim_sdk.types import MODES, Mode


def test_every_mode_has_a_label_and_subsets_hold_no_other() -> None:
    assert set(MODES) == set(get_args(Mode)) == set(LABELS) == set(COLOURS)
    assert set(MODES) == {*BASIC, "no-image"} == PROMPTED | {"nearest"}
    assert READ < SEEN < set(MODES)


@pytest.mark.parametrize("command", ["answer", "eval"])
def test_help_names_every_mode(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"]).output
    assert all(mode in shown for mode in MODES)


def test_the_commands_default_is_the_settings() -> None:
    assert inspect.signature(evaluate).parameters["modes"].default == ",".join(BASIC)
