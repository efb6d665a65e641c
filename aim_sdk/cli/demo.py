"""``aim-icl demo``: the embedded model on real images, measured while you watch."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the plot and the result file.")] = Path("aim-demo"),
    quick: Annotated[bool, typer.Option("--quick", help="14 episodes per task, fewer shots: a minute or two.")] = False,
    seed: Annotated[int, typer.Option(help="Chooses the episodes.")] = 0,
) -> None:
    """Let the embedded model "pocket" learn three tasks from k demonstrations, on images that no training saw.

    Compares AIM with zero-shot, text-only demonstrations, interleaved images, a vote of the nearest demonstrations
    (no prompt), and AIM without images (the control).
    """
    import time

    from rich.console import Console

    from aim_sdk.demo import report, run
    from aim_sdk.demo.tasks import BringsDemo
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.support.progress import advancing
    from aim_sdk.support.terminal import say

    console = Console()
    started = time.monotonic()
    n, repeats = (14, 3) if quick else (67, 5)
    shots = (0, 2, 8) if quick else (0, 1, 2, 4, 8)
    with console.status("loading pocket (the first start converts its weights, about half a minute)"):
        pipe = AIMPipeline.from_pretrained("pocket", prefix_bytes=0)  # every latency is that of a whole prompt
        assert isinstance(pipe.backend, BringsDemo)
        tasks = pipe.backend.demo_tasks(n, seed=seed)
    demonstrations = {id(d): d for task in tasks for episode in task.episodes for d in episode.demonstrations}
    with advancing(f"reading {len(demonstrations)} demonstrations into the bank", len(demonstrations)) as advance:
        for start in range(0, len(demonstrations), run.BATCH):
            batch = list(demonstrations.values())[start : start + run.BATCH]
            pipe.bank.add(batch)
            advance(len(batch))
    cells = run.cells_of(shots)
    with advancing("answering", len(cells) * sum(len(task.episodes) for task in tasks)) as advance:
        outcomes = run.answer_all(pipe, tasks, shots, advance)
    with advancing("timing single queries", repeats * sum(mode not in run.UNTIMED for mode, _ in cells)) as advance:
        latencies = run.time_all(pipe, tasks, shots, repeats, advance)
    measured = run.summarize(outcomes, latencies)

    report.show_queries(console, tasks, outcomes, shots=2)
    console.print()
    for name in [*(task.name for task in tasks), run.ALL]:
        console.print(report.table(measured, name), "")
    console.print(report.cost_table(measured), "")
    seconds = round(time.monotonic() - started)
    settings = {"n": n, "shots": shots, "seed": seed, "quick": quick, "seconds": seconds}
    result, plot = out / "result.json", out / "plot.png"
    report.write_result(result, pipe, tasks, outcomes, measured, settings)
    report.plot(measured, plot)
    console.print(f"{len(pipe.bank)} demonstrations banked, {len(outcomes)} queries answered in {seconds} s.")
    say(f"Plot: {plot}\nResult: {result}")
