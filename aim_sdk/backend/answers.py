"""From generated text to an answer: cut at the stop string, without surrounding blanks, whole or piece by piece."""

from collections.abc import Iterable, Iterator


def clean_answer(text: str, stop: str | None) -> str:
    """Strip leading blanks, cut before the first ``stop`` string, strip trailing blanks.

    A template's newline after the answer is a stop string too; one that *leads* the answer does not end it.
    """
    text = text.lstrip()
    if stop:
        text = text.split(stop, 1)[0]
    return text.rstrip()


def stream_answer(pieces: Iterable[str], stop: str | None) -> Iterator[str]:
    """Yield text as soon as it is certain to be part of the answer; joined, it equals `clean_answer`."""
    held = ""
    started = False
    for piece in pieces:
        held += piece
        if not started:
            held = held.lstrip()
            started = bool(held)
        if stop and stop in held:
            held = held.split(stop, 1)[0]
            break
        ready = len(held) - _held_back(held, stop)
        if ready:
            yield held[:ready]
            held = held[ready:]
    if held.rstrip():
        yield held.rstrip()


def _held_back(text: str, stop: str | None) -> int:
    """Length of the tail that may still turn out to be trailing blanks or the beginning of the stop string."""
    tail = next((n for n in range(min(len(stop or "") - 1, len(text)), 0, -1) if (stop or "").startswith(text[-n:])), 0)
    return len(text) - len(text[: len(text) - tail].rstrip())
