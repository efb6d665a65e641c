"""Episodes: which pairs show, which is asked, what a text is cut to, and names and styles that are drawn."""

import io
import itertools
import os
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from aim_sdk import Demonstration
from aim_sdk.errors import InputError
from aim_sdk.files.images import load_image
from aim_sdk.training.augmentation import Augmentation, view
from aim_sdk.training.config import EpisodeSettings
from aim_sdk.training.corpora import CorpusConfig, Document, Pair
from aim_sdk.training.episode import Episode
from aim_sdk.training.episodes import EpisodeMaker, cut
from aim_sdk.training.things import common_words, things
from tests.corpora import MINIMUM, folder_of, lines, llava, picture

LEVELS = (0, 50, 110, 250)
"""Of grey: far enough apart to be told apart in any view."""


def grey(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (level,) * 3).save(file, "PNG")
    return file.getvalue()


def document(pairs: int, name: str = "file:0") -> Document:
    """Pairs whose images are names only: nothing reads them."""
    return Document(name, tuple(Pair(f"{n}.png", f"Text {n}", f"Answer {n}") for n in range(pairs)))


def maker(seed: int = 0, **changes: Any) -> EpisodeMaker:
    """Episodes of the pages' own texts, unless told otherwise."""
    return EpisodeMaker(EpisodeSettings(**{"labels": 0.0, "styles": 0.0, "relatives": 0.0, **changes}), seed=seed)


def shown(episode: Episode) -> list[str]:
    return [item.answer for item in episode.demonstrations]


# --- cut


@settings(max_examples=300, deadline=None)
@given(text=st.text("ab1 \n.!?\"')。…", max_size=60) | st.text(max_size=60), limit=st.integers(1, 40))
@example(text="Pi is 3.14 or so", limit=8)
@example(text='He said "No." And left', limit=12)
@example(text="No end here. Yes", limit=12)
@example(text="wordwordword", limit=5)
@example(text="二。三。四", limit=3)
def test_a_text_is_cut_behind_a_sentence_if_it_can_be(text: str, limit: int) -> None:
    whole, short = text.strip(), cut(text, limit)
    assert len(short) <= limit
    assert whole.startswith(short)
    assert bool(short) == bool(whole)
    if len(whole) <= limit:
        assert short == whole
        return
    ends = [n for n in range(1, limit + 1) if _ends_a_sentence(whole, n)]
    if ends:
        assert short == whole[: ends[-1]]
    elif " " in whole[: limit + 1]:
        assert short == whole[: limit + 1].rpartition(" ")[0].rstrip(), "a word is whole"
    else:
        assert short == whole[:limit]


def _ends_a_sentence(text: str, place: int) -> bool:
    """The plain rule: a mark, with quotes and brackets after it, before white space; or a full stop of CJK."""
    body, rest = text[:place].rstrip("\"'”’)]"), text[place:]
    if body.endswith(tuple("。！？")) and len(body) == place:
        return not re.match(r"""["'”’)\]]+(\s|$)""", rest)  # these belong to the sentence
    return body.endswith(tuple(".!?…。！？")) and (not rest or rest[0].isspace())


# --- episodes


@settings(deadline=None)
@given(
    pairs=st.integers(0, 9),
    fewest=st.integers(1, 4),
    more=st.integers(0, 4),
    targets=st.integers(1, 5),
    seed=st.integers(0, 50),
    epoch=st.integers(0, 50),
)
def test_pairs_right_before_a_target_are_its_demonstrations(
    pairs: int, fewest: int, more: int, targets: int, seed: int, epoch: int
) -> None:
    shots = (fewest, fewest + more)
    found = maker(seed, shots=shots, targets=targets).episodes(document(pairs), epoch)
    assert found == maker(seed, shots=shots, targets=targets).episodes(document(pairs), epoch)
    assert len(found) == max(0, min(targets, pairs - fewest))
    assert len({episode.answer for episode in found}) == len(found)
    for episode in found:
        place = int(episode.answer.removeprefix("Answer "))
        count = len(episode.demonstrations)
        assert fewest <= count <= fewest + more
        assert shown(episode) == [f"Answer {n}" for n in range(place - count, place)]
        assert [item.text for item in episode.demonstrations] == [f"Text {n}" for n in range(place - count, place)]
        assert (episode.query.image, episode.query.text) == (f"{place}.png", f"Text {place}")
        assert episode.document == "file:0"


def test_what_is_drawn_depends_on_seed_epoch_and_document() -> None:
    def drawn(seed: int, epoch: int, name: str) -> list[tuple[str, ...]]:
        episodes = (maker(seed, shots=(1, 4)).episodes(document(9, name), epoch) for _ in "x")
        return [(*shown(episode), episode.answer) for made in episodes for episode in made]

    for one, other in (((0, 0, "a"), (1, 0, "a")), ((0, 0, "a"), (0, 1, "a")), ((0, 0, "a"), (0, 0, "b"))):
        draws = [(drawn(one[0], one[1], f"{one[2]}{n}"), drawn(other[0], other[1], f"{other[2]}{n}")) for n in "xyz"]
        assert any(first != second for first, second in draws), (one, other)


def test_one_maker_makes_them_in_any_order() -> None:
    one = maker(3, shots=(1, 3), styles=0.5)
    documents = [document(5, f"file:{n}") for n in range(12)]
    forward = [one.episodes(item, 2) for item in documents]
    backward = [one.episodes(item, 2) for item in reversed(documents)]
    assert forward == backward[::-1]


def test_all_shots_and_targets_are_drawn() -> None:
    found = [e for n in range(200) for e in maker(shots=(1, 3)).episodes(document(5, f"file:{n}"), 0)]
    assert {len(episode.demonstrations) for episode in found} == {1, 2, 3}
    assert {episode.answer for episode in found} == {f"Answer {n}" for n in range(1, 5)}


def test_texts_are_cut_and_an_empty_one_is_replaced() -> None:
    pairs = tuple(Pair(f"{n}.png", text, "One is here. Two") for n, text in enumerate(["", " ", "A b c. " * 9]))
    (episode,) = maker(shots=(2, 2), text="Describe.", max_characters=16).episodes(Document("d", pairs), 0)
    assert [item.text for item in episode.demonstrations] == ["Describe.", "Describe."]
    assert episode.query.text == "A b c. A b c."
    assert {*shown(episode), episode.answer} == {"One is here. Two"}


# --- ids


def ids(made: Document, epoch: int = 0, **changes: Any) -> list[Any]:
    (episode,) = maker(shots=(2, 2), **changes).episodes(made, epoch)
    return [item.metadata.get("id") for item in episode.demonstrations]


def test_an_id_names_the_content(tmp_path: Path) -> None:
    for place in range(3):
        (tmp_path / f"{place}.png").write_bytes(picture(place))
    by_path = Document("d", tuple(Pair(str(tmp_path / f"{n}.png"), "T", f"Answer {n}") for n in range(3)))
    by_bytes = Document("d", tuple(Pair(picture(n), "T", f"Answer {n}") for n in range(3)))
    for made in (by_path, by_bytes):
        before = ids(made)
        assert len(set(before)) == 2
        assert ids(made) == ids(made, epoch=5) == ids(made, seed=4) == before
        first = made.pairs[0]
        for change in ({"text": "U"}, {"answer": "Answer"}, {"text": "TAnswer", "answer": "0"}, {"image": picture(8)}):
            changed = ids(replace(made, pairs=(replace(first, **change), *made.pairs[1:])))
            assert (changed[0] == before[0], changed[1] == before[1]) == (False, True), change
        assert ids(replace(made, id="e"))[0] != before[0]
    before = ids(by_path)
    (tmp_path / "1.png").write_bytes(picture(9, 17))
    assert (ids(by_path)[0], ids(by_path)[1] == before[1]) == (before[0], False)
    before = ids(by_path)
    os.utime(tmp_path / "0.png", ns=(1, 1))  # the same size, another time
    assert ids(by_path)[0] != before[0]
    (tmp_path / "0.png").unlink()
    assert ids(by_path)[0] != before[0], "it is missed where it is read"


def test_a_style_is_part_of_the_id() -> None:
    by_id: dict[object, str] = {}
    for epoch in range(200):
        (episode,) = maker(shots=(2, 2), styles=0.9).episodes(document(3), epoch)
        for item in episode.demonstrations:
            assert by_id.setdefault(item.metadata["id"], item.answer) == item.answer
    assert len(by_id) > 100


# --- names


def level_of(source: Any) -> int:
    """Which of the levels of grey a view shows."""
    image = load_image(source).convert("L")
    value = image.resize((1, 1)).getpixel((0, 0))
    assert isinstance(value, int)
    return min(range(len(LEVELS)), key=lambda place: abs(LEVELS[place] - value))


GREYS = Document("greys", tuple(Pair(grey(level), "text", "answer") for level in LEVELS))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), shots=st.integers(1, 7), pairs=st.integers(2, 4))
def test_the_demonstrations_tell_the_name_that_is_asked_for(seed: int, shots: int, pairs: int) -> None:
    made = replace(GREYS, pairs=GREYS.pairs[:pairs])
    (episode,) = maker(seed, shots=(min(shots, pairs - 1), shots), labels=1.0).episodes(made, 0)
    named: dict[str, set[int]] = {}
    for item in episode.demonstrations:
        named.setdefault(item.answer, set()).add(level_of(item.image))
        assert item.text == episode.query.text != ""
        assert "id" not in item.metadata, "another view each time: it is not kept"
    assert named[episode.answer] == {level_of(episode.query.image)}
    assert all(len(levels) == 1 for levels in named.values())
    assert len(set.union(*named.values())) == len(named), "an image has one name"
    count = len(episode.demonstrations)
    assert min(2, count) <= len(named) <= min(4, pairs, count)
    assert len({name[:2] for name in named}) == len(named)


def test_names_are_asked_for_with_the_usual_text_too() -> None:
    """Else the projector learns names for some questions, and sentences for the one that the other episodes have."""
    asked = {
        maker(seed, shots=(2, 2), labels=1.0, text="What is this?").episodes(GREYS, 0)[0].query.text
        for seed in range(60)
    }
    assert "What is this?" in asked
    assert len(asked) == 6


def test_a_query_is_another_picture_of_the_same_thing_where_the_page_has_one() -> None:
    """Two texts share a word that no third has: their pictures show one thing."""
    texts = ("The Wallaby sits.", "A kestrel.", "An otter here.", "Two of a wallaby!")
    page = Document("page", tuple(Pair(grey(level), "", text) for level, text in zip(LEVELS, texts, strict=True)))
    for relatives, seed in itertools.product((0.0, 1.0), range(60)):
        (episode,) = maker(seed, labels=1.0, relatives=relatives, shots=(2, 3)).episodes(page, 0)
        named: dict[str, set[int]] = {}
        for item in episode.demonstrations:
            named.setdefault(item.answer, set()).add(level_of(item.image))
        asked, shown_as = level_of(episode.query.image), named[episode.answer]
        assert shown_as == ({3 - asked} if relatives else {asked})
        assert sum(bool({0, 3} & levels) for levels in named.values()) < 2, "one thing has one name"


def test_a_query_is_another_view_where_a_page_has_one_picture_of_everything() -> None:
    """The same picture twice is no other picture of the thing."""
    texts, levels = ("The wallaby sits.", "A kestrel.", "An otter here.", "Two of a wallaby!"), (0, 50, 110, 0)
    page = Document("page", tuple(Pair(grey(level), "", text) for level, text in zip(levels, texts, strict=True)))
    for seed in range(20):
        (episode,) = maker(seed, labels=1.0, relatives=1.0, shots=(2, 3)).episodes(page, 0)
        shown_as = {level_of(item.image) for item in episode.demonstrations if item.answer == episode.answer}
        assert shown_as == {level_of(episode.query.image)}


def test_all_pictures_of_a_thing_but_the_query_are_shown() -> None:
    texts = ("Her lemur, wild.", "A gibbon.", "That lemur in trees", "High trees here")
    page = Document("page", tuple(Pair(grey(level), "", text) for level, text in zip(LEVELS, texts, strict=True)))
    whole = 0
    for seed in range(40):
        (episode,) = maker(seed, labels=1.0, relatives=1.0, shots=(3, 8)).episodes(page, 0)
        levels = [level_of(item.image) for item in episode.demonstrations if item.answer == episode.answer]
        asked = level_of(episode.query.image)
        assert asked != 1, "the page has one picture of it"
        if len(levels) > 1:
            assert set(levels) == {0, 2, 3} - {asked}
            whole += 1
    assert whole > 10


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["a lemur", "the Lemur", "a gibbon"], [[0, 1], [2]]),
        (["a lemur", "the lemur", "lemurs, a lemur"], [[0], [1], [2]]),  # three of them: the page's topic
        (["a lemur", "a gibbon", "lemur, up", "so up: gibbon"], [[0, 2], [1, 3]]),
        (["a lemur", "a panda", "lemur but wombat", "one wombat"], [[0, 2, 3], [1]]),
        (["here is a lemur", "here is a gibbon", "an owl"], [[0], [1], [2]]),  # a common word
        (["an ox", "no ox", "a dog"], [[0], [1], [2]]),  # too short to tell anything
        (["", "", "word"], [[0], [1], [2]]),
        ([], []),
    ],
)
def test_texts_about_one_thing(texts: list[str], found: list[list[int]]) -> None:
    assert things(texts, frozenset({"here"})) == found


def test_common_words_are_those_of_many_documents(tmp_path: Path) -> None:
    """Of 300 documents, of eight samples each, more than three have a common word: of these two, only "rather"."""
    folder_of(tmp_path, 1)
    spoken = [f"Here is {'seldom ' * (n < 24)}{'rather ' * (n < 32)}a thing of {_word(n)}" for n in range(2400)]
    turns = [[{"from": "human", "value": "<image>"}, {"from": "gpt", "value": text}] for text in spoken]
    lines(tmp_path / "some.jsonl", [llava(n, image="0.png", conversations=turn) for n, turn in enumerate(turns)])
    corpus = CorpusConfig(path=tmp_path, format="llava", min_image_bytes=MINIMUM)
    assert common_words(corpus) == {"here", "thing", "rather"}


def _word(number: int) -> str:
    return "".join(chr(97 + int(digit)) for digit in f"{number:04}")


def test_the_names_of_an_episode_are_those_that_are_shown() -> None:
    (episode,) = maker(3, labels=1.0, shots=(2, 4)).episodes(GREYS, 0)
    assert set(episode.names) == set(shown(episode))
    assert episode.answer in episode.names
    assert episode.key is None
    assert len(episode.pictures) == len(episode.demonstrations)


def test_equal_keys_are_equal_episodes() -> None:
    """Another seed draws other targets and shots; what has a key again is the same."""
    made = [e for seed in range(30) for e in maker(seed, shots=(1, 3), targets=1).episodes(document(5), 0)]
    by_key = {episode.key: episode for episode in made}
    assert None not in by_key
    assert 1 < len(by_key) < len(made)
    assert all(by_key[episode.key] == episode for episode in made)


def test_naming_episodes_are_the_same_at_every_call() -> None:
    def made(epoch: int) -> list[Any]:
        (episode,) = maker(7, labels=1.0, shots=(3, 3)).episodes(GREYS, epoch)
        images = [load_image(item.image).tobytes() for item in (*episode.demonstrations, episode.query)]
        return [images, shown(episode), episode.query.text, episode.answer]

    assert made(0) == made(0)
    assert made(0) != made(1)


def test_shares_of_naming_and_styles_are_kept() -> None:
    one = maker(labels=0.3, styles=0.2, shots=(2, 2))
    found = [e for n in range(600) for e in one.episodes(document(4, f"file:{n}"), 0)]
    naming = sum("id" not in episode.demonstrations[0].metadata for episode in found)
    styled = sum("~" in str(episode.demonstrations[0].metadata.get("id", "")) for episode in found)
    assert naming / 600 == pytest.approx(0.3, abs=0.07)
    assert styled / 600 == pytest.approx(0.2, abs=0.07)


def test_half_of_the_names_come_from_the_list(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(50)]
    (tmp_path / "words.txt").write_text("\n\n".join([*words, words[0], "  "]))
    augmentation = Augmentation(EpisodeSettings(label_words=tmp_path / "words.txt"), frozenset())
    drawn = [augmentation.names(random.Random(seed), 4) for seed in range(300)]
    assert all(len(set(names)) == 4 for names in drawn)
    listed = [names for names in drawn if set(names) <= set(words)]
    assert len(listed) == pytest.approx(150, abs=40)
    assert all(not set(names) & set(words) for names in drawn if names not in listed)


@pytest.mark.parametrize("data", [None, b"", b"a\nb\n\nb\nc", b"\xff\xfe\x00"])
def test_a_list_of_words_that_cannot_be_used_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "words.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"label_words: .*words\.txt"):
        maker(label_words=path)


def test_names_seldom_come_again() -> None:
    augmentation = Augmentation(EpisodeSettings(), frozenset())
    names = [name for seed in range(1000) for name in augmentation.names(random.Random(seed), 2)]
    assert len(set(names)) > 0.9 * len(names)
    assert all(re.fullmatch("[a-z]{3,}", name) for name in names)


# --- styles


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_all_answers_of_an_episode_share_a_style(seed: int) -> None:
    stems = ["A Red apple", "two Dogs. yes", "blue"]
    made = [Demonstration("x.png", "?", stem, {"id": str(n)}) for n, stem in enumerate(stems)]
    styled = Augmentation(EpisodeSettings(), frozenset()).styled(random.Random(seed), made)
    assert [(item.image, item.text) for item in styled] == [(item.image, item.text) for item in made]
    shapes, shared = set(), set(range(4))
    for item, stem in zip(styled, stems, strict=True):
        place = item.answer.lower().rindex(stem.lower())
        body = item.answer[place : place + len(stem)]
        cases = {n for n, case in enumerate((str, str.lower, str.upper, str.title)) if body == case(stem)}
        shapes.add((item.answer[:place], item.answer[place + len(stem) :]))
        shared &= cases
    assert shared, "one case for all"
    assert len(shapes) == 1
    assert len({str(item.metadata["id"]).split("~", 1)[1] for item in styled}) == 1


def test_targets_are_in_the_style_of_their_demonstrations() -> None:
    one = maker(shots=(2, 2), styles=1.0)
    frames = set()
    for number in range(60):
        (episode,) = one.episodes(document(4, f"file:{number}"), 0)
        answers = {re.sub(r"\d", "#", answer) for answer in (*shown(episode), episode.answer)}
        assert len(answers) == 1
        frames |= answers
    assert len(frames) > 40


# --- views


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 40), height=st.integers(1, 40))
def test_a_view_of_any_image_is_an_image(seed: int, width: int, height: int) -> None:
    image = Image.effect_noise((width, height), 90)
    seen, again = (view(random.Random(seed), image) for _ in "xx")
    assert isinstance(seen, Image.Image)
    assert isinstance(again, Image.Image)
    assert seen.mode == "RGB"
    assert 1 <= seen.width <= width + 1
    assert 1 <= seen.height <= height + 1
    assert seen.tobytes() == again.tobytes()


def test_what_is_no_image_stays_as_it_is() -> None:
    for source in (b"no image", "/not/there.png"):
        assert view(random.Random(0), source) == source
