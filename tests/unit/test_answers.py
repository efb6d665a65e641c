import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim_sdk.backend.answers import clean_answer, stream_answer

STOPS = st.sampled_from([None, "\n", "ab", "a b", "aab", "\n\n", " b"])


@given(st.lists(st.text(alphabet=" \nab")), STOPS)
def test_streamed_pieces_join_to_the_clean_answer(pieces: list[str], stop: str | None) -> None:
    """Catches text that is sent too early: blanks that turn out to trail, half a stop string."""
    assert "".join(stream_answer(pieces, stop)) == clean_answer("".join(pieces), stop)


@pytest.mark.parametrize(
    ("text", "stop", "answer"),
    [(" a lynx\nQuestion", "\n", "a lynx"), ("\n a", "\n", "a"), ("a\n b ", None, "a\n b"), ("", "\n", "")],
)
def test_clean_answer(text: str, stop: str | None, answer: str) -> None:
    assert clean_answer(text, stop) == answer


def test_a_stream_starts_before_the_text_ends() -> None:
    assert next(stream_answer(iter([" red", " and", " blue"]), "\n")) == "red"
