"""A part of pocket's table: some of the trials, with the demonstrations that its shots show."""

import json
from pathlib import Path

from benchmarks.pocket.table_runs import Part, Row, TableSettings, part_of


def test_a_part_has_its_trials_of_every_seed_and_no_others(tmp_path: Path) -> None:
    trials, folder = [f"{seed}-{n}" for seed in (1, 2) for n in range(5)], tmp_path / "trials" / "names"
    folder.mkdir(parents=True)
    (folder / "task.yaml").write_text("name: pocket-names\n")
    for name, lines in (
        ("queries", [{"id": trial, "demonstrations": [f"{trial}-{place}" for place in range(16)]} for trial in trials]),
        ("support", [{"id": f"{trial}-{place}"} for trial in trials for place in range(16)]),
    ):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    part = Part(shots=(1, 4), trials=(1, 3))
    table = TableSettings(
        output=tmp_path / "runs",
        kept=tmp_path / "kept",
        trials=tmp_path / "trials",
        tasks=("names",),
        parts={"first": part},
        rows={"backbone": Row(modes=("zero-shot",))},
    )
    file = part_of(table, "first", part, "names")
    asked = [json.loads(line) for line in (file.parent / "queries.jsonl").read_text().splitlines()]
    assert [line["id"] for line in asked] == ["1-1", "1-2", "2-1", "2-2"]
    assert all(line["demonstrations"] == [f"{line['id']}-{place}" for place in range(4)] for line in asked)
    shown = [json.loads(line)["id"] for line in (file.parent / "support.jsonl").read_text().splitlines()]
    assert shown == [one for line in asked for one in line["demonstrations"]]
