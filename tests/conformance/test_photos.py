"""Photos, receipts, banners and icons: each is read and answered in a batch as alone, whatever tiles it is cut into."""

import pytest
import torch
from PIL import Image

from aim_sdk import Demonstration, FusedTokens, Query
from aim_sdk.testing.samples import picture
from tests.conformance.families import Family

SIZES = ((4032, 3024), (120, 900), (1000, 200), (48, 48))
TEXTS = ("What is this?", "", "How many people are in the picture?", "And here?")


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [picture(*size, 40 * number) for number, size in enumerate(SIZES)]


def test_each_is_read_in_a_batch_as_alone(family: Family, photos: list[Image.Image]) -> None:
    shots = [Demonstration(photo, text, "a cat") for photo, text in zip(photos, TEXTS, strict=True)]
    reader, form = family.backend.reader, family.form
    texts = reader.text_only(shots, prompt_format=form)
    for shot, text, found in zip(shots, texts, reader.read(shots, prompt_format=form), strict=True):
        (alone,) = reader.read([shot], prompt_format=form)
        torch.testing.assert_close(found.hidden, alone.hidden, atol=1e-4, rtol=1e-4)
        assert isinstance(text, FusedTokens)
        assert text.token_ids is not None
        assert torch.equal(found.token_ids, text.token_ids)


def test_each_is_answered_in_a_batch_as_alone(family: Family, photos: list[Image.Image]) -> None:
    queries = [Query(photo, text) for photo, text in zip(photos, TEXTS, strict=True)]
    contexts = [family.text_only(0), [], family.text_only(1, 2), []]
    ask, form = family.backend.injector.generate, family.form
    together = ask(queries, contexts, prompt_format=form, max_new_tokens=3)
    for query, context, found in zip(queries, contexts, together, strict=True):
        (alone,) = ask([query], [context], prompt_format=form, max_new_tokens=3)
        assert (found.token_ids, found.prompt_tokens) == (alone.token_ids, alone.prompt_tokens)
