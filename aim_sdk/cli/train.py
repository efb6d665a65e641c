"""``aim-icl train``: one projector for one backbone, from a YAML file."""

from pathlib import Path
from typing import Annotated

import typer

from aim_sdk.cli import options


def train(
    config: Annotated[Path, typer.Argument(help="A YAML file of settings; see the how-to *Train a projector*.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace the file's: `steps=200 optimizer.learning_rate=1e-4`."),
    ] = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Train a projector for a frozen backbone, or resume an interrupted run.

    Ctrl-C saves and stops; the same command resumes. On several GPUs:
    `torchrun --nproc_per_node 4 -m aim_sdk.cli train config.yaml`.
    """
    import os

    from aim_sdk.support.terminal import say
    from aim_sdk.training import TrainingConfig
    from aim_sdk.training import train as run

    trusted = ["backend_options.trust_remote_code=true"] if trust_remote_code else []
    settings = TrainingConfig.load(config, [*(overrides or []), *trusted])
    result = run(settings)
    if os.environ.get("RANK", "0") != "0":  # torchrun's: one process speaks
        raise typer.Exit(0 if result.finished else 130)
    for reason, count in result.dropped.most_common():
        say(f"left out: {count} x {reason}", err=True)
    if result.projector is None:
        say(f"interrupted after step {result.step}; the same command resumes from there.", err=True)
        raise typer.Exit(130)
    say(f"Projector: {result.projector} ({result.verdict})\nLog, plot: {settings.output}")
