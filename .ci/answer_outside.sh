#!/usr/bin/env bash
# answer_outside.sh ENVIRONMENT FOLDER: answer queries with the SDK that ENVIRONMENT has installed, from inside FOLDER.
set -euo pipefail
environment="$1"
mkdir -p "$2"
cd "$2"

"$environment/bin/python" - <<'PYTHON'
import json
import sys
from pathlib import Path

import aim_backends
import aim_sdk
import easy_vqa
from aim_sdk import list_backends

for package in (aim_sdk, aim_backends):
    where = Path(package.__file__).resolve()
    assert where.is_relative_to(Path(sys.prefix).resolve()), f"{package.__name__} is imported from {where}, not from the wheel"
assert {"auto", "idefics", "llava", "pocket", "qwen-vl"} <= {info.name for info in list_backends()}
assert all(info.status == "ready" for info in list_backends()), list_backends()

paths = easy_vqa.get_test_image_paths()
rows = list(zip(*easy_vqa.get_test_questions()))  # (question, answer, image id)
colours = [row for row in rows if row[0].startswith("what color")]
Path("images").mkdir(exist_ok=True)


def line(question: str, answer: str | None, image: int) -> str:
    name = f"images/{image}.png"
    Path(name).write_bytes(Path(paths[image]).read_bytes())
    return json.dumps({"image": name, "text": question} | ({} if answer is None else {"answer": answer}))


Path("demos.jsonl").write_text("".join(line(*row) + "\n" for row in colours[:4]))
Path("queries.jsonl").write_text("".join(line(text, None, image) + "\n" for text, _, image in colours[4:8]))
Path("expected.json").write_text(json.dumps([answer for _, answer, _ in colours[4:8]]))
PYTHON

"$environment/bin/aim-icl" backends list
"$environment/bin/aim-icl" answer --backend pocket --demos demos.jsonl --queries queries.jsonl --out answers.jsonl

"$environment/bin/python" - <<'PYTHON'
import json
from pathlib import Path

answers = [json.loads(line)["answer"] for line in Path("answers.jsonl").read_text().splitlines()]
expected = json.loads(Path("expected.json").read_text())
print("answers:", answers, "expected:", expected)
assert len(answers) == len(expected), "an answer is missing"
assert sum(a == e for a, e in zip(answers, expected)) >= 3, "pocket no longer names colours"
PYTHON
