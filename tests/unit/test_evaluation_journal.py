"""A run's folder is its own: what another tool or run left there is not overwritten."""

from pathlib import Path

import pytest

from aim_sdk.errors import InputError
from aim_sdk.evaluation.journal import AnswerJournal


@pytest.mark.parametrize("name", ["result.json", "answers-0.jsonl"])
def test_a_folder_with_answers_of_no_known_run_is_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=r"answers without settings\.json; expected a run's folder, or a new one"):
        AnswerJournal(tmp_path, {"protocol": "demo"}, 0)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_with_other_files_becomes_a_run(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    AnswerJournal(tmp_path, {"protocol": "demo"}, 0)
    AnswerJournal(tmp_path, {"protocol": "demo"}, 0)
    with pytest.raises(InputError):
        AnswerJournal(tmp_path, {"protocol": "aim"}, 0)
