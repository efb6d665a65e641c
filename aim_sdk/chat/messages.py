"""Chat messages as OpenAI's clients send them, checked and turned into turns; nothing in them is left out silently."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from aim_sdk.errors import ImageError, InputError, said
from aim_sdk.files.downloads import fetch_image
from aim_sdk.files.images import MAX_FILE_BYTES, describe, is_url, load_image
from aim_sdk.types import ImageInput, check_text, is_image

Messages: TypeAlias = "Iterable[Mapping[str, Any] | BaseModel]"
"""A conversation in OpenAI's form: dicts, or objects with `model_dump`, such as a client's own answers."""

Role = Literal["system", "user", "assistant"]
History = Literal["demonstrations", "ignored"]
"""What the turns before the last one are: demonstrations, or nothing that is looked at."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says: its texts, joined by line ends, and its images."""

    role: Role
    text: str
    images: Mapping[str, ImageInput]
    """By their places: ``"messages[2].content[1]"``."""
    place: int
    """The index of its (first) message."""


@dataclass(frozen=True, slots=True)
class ImageSources:
    """Where a conversation's images may come from, besides its data URIs."""

    local: bool = False
    """Parts of type ``image``: files, bytes and objects of this process."""
    hosts: frozenset[str] = frozenset()
    """Hosts that images are downloaded from; never from an address that is not public."""


IN_PROCESS: Final = ImageSources(local=True)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class _Text(_Part):
    type: Literal["text"]
    text: str


class _Url(_Part):
    url: str
    detail: Literal["auto", "low", "high"] | None = None
    """It has no effect: the backbone's processor decides how an image is seen."""


class _ImageUrl(_Part):
    type: Literal["image_url"]
    image_url: Annotated[_Url, BeforeValidator(lambda given: {"url": given} if isinstance(given, str) else given)]


class _Image(_Part):
    """A picture of this process: not part of OpenAI's form."""

    type: Literal["image"]
    image: Any


_AnyPart = Annotated[_Text | _ImageUrl | _Image, Field(discriminator="type")]


def _parts(content: object) -> object:
    """A content that is a text, as its only part."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_AnyPart], BeforeValidator(_parts)]
    name: str | None = None
    """Of a speaker; it has no effect: no chat template shows it."""
    refusal: None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[None, BeforeValidator(lambda given: None if given == [] else given)] = None


_MESSAGE: TypeAdapter[_Message] = TypeAdapter(_Message)


def turns_of(messages: Messages, history: History = "demonstrations", sources: ImageSources = IN_PROCESS) -> list[Turn]:
    """The turns of a conversation; neighbouring messages of one side are one turn.

    Images are not decoded here: most of them may have been read before. With a history that is ignored, only the
    system message and the last turn of the user are looked at.

    Raises:
        InputError: something in a message is not understood; it says where.
        ImageError: an image is an address, or no data URI.
    """
    if isinstance(messages, Mapping | str | bytes | BaseModel) or not isinstance(messages, Iterable):
        raise InputError(f"messages: {type(messages).__name__}; expected a list of messages with a role and a content.")
    turns: list[Turn] = []
    given = [one.model_dump(exclude_none=True) if isinstance(one, BaseModel) else one for one in messages]
    for place in range(len(given)) if history == "demonstrations" else _without_history(given):
        turn = _turn(given[place], f"messages[{place}]", place, sources)
        if turns and turns[-1].role == turn.role:
            last = turns.pop()
            text = "\n".join(part for part in (last.text, turn.text) if part)
            turn = Turn(turn.role, text, {**last.images, **turn.images}, last.place)
        turns.append(turn)
    return turns


def _without_history(given: Sequence[object]) -> list[int]:
    """The places of the system message and of the last turn, if that is the user's."""
    roles = [one.get("role") if isinstance(one, Mapping) else None for one in given]
    first = list(takewhile(lambda place: roles[place] in ("system", "developer"), range(len(roles))))
    last = list(takewhile(lambda place: roles[place] == "user", reversed(range(len(first), len(roles)))))
    return [*first, *reversed(last or range(len(first), len(roles))[-1:])]


def _turn(given: object, where: str, place: int, sources: ImageSources) -> Turn:
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: {type(given).__name__}; expected a message with a role and a content.")
    try:
        message = _MESSAGE.validate_python(given)
    except ValidationError as error:
        raise InputError(_refused(where, error)) from error
    images = {
        (at := f"{where}.content[{number}]"): _image(part, at, sources)
        for number, part in enumerate(message.content)
        if not isinstance(part, _Text)
    }
    text = "\n".join(part.text for part in message.content if isinstance(part, _Text) and part.text)
    check_text(text, where, "content")
    role: Role = "system" if message.role == "developer" else message.role
    if images and role != "user":
        raise InputError(f"{where}: an image in a turn of the {role}; only the user shows images.")
    return Turn(role, text, images, place)


def _refused(where: str, error: ValidationError) -> str:
    """The first problem of a message, and what is expected there."""
    first = error.errors()[0]
    loc = first["loc"][:2] + first["loc"][3:]  # the third names which kind of part it is
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    if loc == ("content",):
        return f"{where}.content: {type(first['input']).__name__}; expected a text, or a list of parts."
    message = re.sub(r" or instance of \w+", "", f"{where}{at}: {said(first)}.")
    if first["type"] == "extra_forbidden":
        message += " It would be left out. Next: remove it; images stand in `content`, as parts of type image_url."
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        message += " Expected a part of type text, image_url or image."
    return message


@contextmanager
def naming_the_image(turns: Sequence[Turn]) -> Iterator[None]:
    """Inside the block, an image that cannot be decoded is named by its place."""
    try:
        yield
    except ImageError as error:
        for where, image in (pair for turn in turns for pair in turn.images.items()):
            try:
                load_image(image)
            except ImageError as found:
                raise ImageError(f"{where}: {found}") from error
        raise


def _image(part: _ImageUrl | _Image, where: str, sources: ImageSources) -> ImageInput:
    """The image of a part."""
    if isinstance(part, _ImageUrl):
        url = part.image_url.url
        if sources.local and not is_url(url) and url[:5].lower() != "data:":
            raise ImageError(
                f"{where}: {describe(url)}: expected a data URI with an image in base64. A file of this machine is a "
                'part of its own: {"type": "image", "image": path}.'
            )
        return image_of_url(url, where, sources.hosts)
    if not sources.local:
        raise ImageError(f"{where}: a part of type image; expected image_url with a data URI.")
    image: ImageInput = part.image
    if not is_image(image):
        raise InputError(
            f"{where}.image: {type(image).__name__}; expected a path, the bytes of an image file or a PIL image."
        )
    return image


def image_of_url(url: str, where: str, hosts: Collection[str] = ()) -> bytes:
    """The bytes of a data URI, or of an address of one of the hosts.

    Raises:
        ImageError: it is neither, or it cannot be downloaded.
    """
    if is_url(url):
        if not hosts:
            raise ImageError(
                f"{where}: {describe(url)} is an address, and nothing is fetched from there.\n"
                "Next: send the image itself, as a data URI: data:image/png;base64,..."
            )
        try:
            return fetch_image(url, hosts=hosts)
        except ImageError as error:
            raise ImageError(f"{where}: {error}") from error
    head, comma, data = url.partition(",")
    kind, *options = head.lower().split(";")
    if not comma or not kind.startswith("data:image/") or options[-1:] != ["base64"]:
        raise ImageError(
            f"{where}: {describe(url)}: expected a data URI with an image in base64 (data:image/png;base64,...)."
        )
    if len(data) * 3 // 4 > MAX_FILE_BYTES:
        raise ImageError(f"{where}: an image of about {len(data) * 3 // 4:,} bytes; at most {MAX_FILE_BYTES:,}.")
    try:
        return base64.b64decode(re.sub(r"\s+", "", data), validate=True)  # `base64` writes lines
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{where}: {describe(url)}: not base64 ({error}).") from error
