"""Fused tokens that were computed once into a cache: what a backend declares of them is what is measured."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from aim_backends.drafting.facts import behind_a_prefix
from aim_backends.hf import TransformersBackend
from aim_backends.llava import LlavaBackend
from aim_backends.qwen_vl import QwenVLBackend
from aim_sdk import FusedTokens, Generation, PromptFormat
from aim_sdk.backend import ReusesPrefixes, find, prefixes
from aim_sdk.backend.prefixes import DEFAULT_BYTES, PrefixCache
from tests.conformance.families import DEMONSTRATIONS, QUERIES, Family


def test_one_prompt_behind_a_shared_prefix(family: Family) -> None:
    fused = family.text_only(0, 1)
    wrong = [behind_a_prefix(family.backend, [query], fused, family.form) for query in QUERIES]
    assert (not any(wrong)) == (find(family.backend, ReusesPrefixes) is not None), _next(family)


def test_unequal_prompts_behind_a_shared_prefix(family: Family) -> None:
    wrong = behind_a_prefix(family.backend, QUERIES, family.text_only(0, 1), family.form)
    assert (not wrong) == family.backend.backbone.family.prefix.padded, _next(family)


def _next(family: Family) -> str:
    return f"correct `prefix` of {family.plain.config.model_type!r} in aim_backends/families/table.py"


CHOICES = ["No", "It is a lynx, or a fox."]


def test_answers_behind_a_kept_prefix_are_the_plain_ones(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    injector, form = family.backend.injector, family.form
    context = _keyed(family.text_only(0, 1, 2))
    two, three = context[:2], context
    one: dict[str, Any] = {"prompt_format": form, "max_new_tokens": 2, "log_probs": True}
    if find(family.backend, ReusesPrefixes) is None:
        for _ in range(3):
            injector.generate(QUERIES[:1], [two], **one)
        assert not injector.prefixes.info()["states"]
        return
    beams: dict[str, Any] = {"prompt_format": form, "max_new_tokens": 2, "num_beams": 2, "num_return_sequences": 2}
    asks: dict[str, Callable[[], Any]] = {
        "generate": lambda: _numbers(injector.generate(QUERIES[:1], [two], **one)),
        "stream": lambda: "".join(injector.stream(QUERIES[0], two, prompt_format=form, max_new_tokens=3)),
        "score": lambda: _flat(injector.score(QUERIES[1], three, CHOICES, prompt_format=form)),
        "unequal": lambda: _numbers(injector.generate(QUERIES[:2], [two, three], **one)),
        "beams": lambda: [made.token_ids for made in injector.generate([QUERIES[2]] * 2, [two] * 2, **beams)],
    }
    if family.variant == "llama4":  # no beams, see its note
        del asks["beams"]
    with _reusing(family.backend, monkeypatch) as kept, _counting(family.backend) as forwarded:
        cache = injector.prefixes
        cache.resize(0)
        plain = {name: (ask(), forwarded()) for name, ask in asks.items()}
        cache.resize(DEFAULT_BYTES)
        head = injector.prepare(QUERIES[:1], [two], prompt_format=form).heads[0]
        short, long = (head + sum(map(len, items)) for items in (two, three))
        shared = short if family.backend.backbone.family.prefix.padded else 0
        calls = [("generate", 0, 0), ("generate", 0, 1), ("generate", short, 1), ("stream", short, 1)]
        # The third demonstration is new, then computed after the other two, then reused.
        calls += [("score", short, 1), ("score", short, 2), ("score", long, 2), ("generate", short, 2)]
        calls += [("unequal", 2 * shared, 2), ("beams", 4 * short, 2)]
        for name, saved, states in calls:
            if name not in asks:
                continue
            expected, whole = plain[name]
            _assert_same(asks[name](), expected)
            assert (name, forwarded()) == (name, whole - saved)
            assert cache.info()["states"] == states
        for state, then in kept.items():
            for (name, found), (_, expected) in zip(_walk(state), _walk(then), strict=True):
                assert torch.equal(found, expected), name
        assert cache.info()["bytes"] == sum(map(_nbytes, kept))


def test_threads_share_a_prefix(llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    context = _keyed(llava.reader.text_only(DEMONSTRATIONS, prompt_format=llava.default_format))
    options: dict[str, Any] = {"prompt_format": llava.default_format, "max_new_tokens": 8}
    expected = [made.text for made in llava.injector.generate(QUERIES, [list(map(_unkeyed, context))] * 3, **options)]
    found: dict[tuple[int, int], str] = {}

    def ask(place: int) -> None:
        for again in range(4):
            if again % 2:
                found[place, again] = "".join(llava.injector.stream(QUERIES[place], context, **options)).strip()
            else:
                found[place, again] = llava.injector.generate([QUERIES[place]], [context], **options)[0].text

    with _reusing(llava, monkeypatch) as kept:
        threads = [threading.Thread(target=ask, args=(place,)) for place in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(kept) == 1  # each waits for the first that computes it
    assert found == {(place, again): expected[place] for place in range(3) for again in range(4)}


def test_prefixes_keep_their_bound(llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    form, cache = llava.default_format, llava.injector.prefixes
    fused = llava.reader.text_only(DEMONSTRATIONS, prompt_format=form)
    contexts = [_keyed([fused[n]], f"bound{n}") for n in range(3)]
    assert cache is not None

    def ask(n: int) -> list[float]:
        return _flat(llava.injector.score(QUERIES[0], contexts[n], CHOICES, prompt_format=form))

    with _reusing(llava, monkeypatch) as kept, _counting(llava) as forwarded:
        cache.resize(0)
        plain = [(ask(n), forwarded()) for n in range(3)]
        cache.resize(DEFAULT_BYTES)
        for n in (0, 0, 1, 1, 2, 2):
            _assert_same(ask(n), plain[n][0])
        sizes = [_nbytes(state) for state in kept]
        bound = sum(sizes) - 1
        cache.resize(bound)
        for n in (0, 0, 1, 1, 2, 2):
            _assert_same(ask(n), plain[n][0])
            assert cache.info()["bytes"] <= bound
        assert cache.info()["states"] < 3
        forwarded()
        ask(2)
        assert forwarded() < plain[2][1]  # the last is there
        ask(0)
        assert forwarded() == plain[0][1]  # the first is not: it is computed again
        cache.resize(min(sizes) - 1)  # too small for any
        for n in (0, 0, 0):
            _assert_same(ask(n), plain[n][0])
        assert cache.info()["states"] == 0


def test_what_cannot_stand_behind_a_prefix_is_computed_whole(
    llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, injector = llava.default_format, llava.injector
    context = _keyed(llava.reader.text_only(DEMONSTRATIONS, prompt_format=form))

    def ask(**options: Any) -> list[tuple[int, ...]]:
        torch.manual_seed(0)
        made = injector.generate(QUERIES[:1], [context], prompt_format=form, max_new_tokens=6, **options)
        return [answer.token_ids for answer in made]

    ways: list[tuple[dict[str, Any], bool]] = [
        ({"do_sample": True, "num_return_sequences": 3}, True),
        ({"repetition_penalty": 1.5, "no_repeat_ngram_size": 2, "use_cache": True}, True),
        ({"use_cache": False}, False),
        ({"cache_implementation": "static"}, False),
        ({"prompt_lookup_num_tokens": 2}, False),
    ]
    with _reusing(llava, monkeypatch), _counting(llava) as forwarded:
        for options, reuses in ways:
            injector.prefixes.resize(0)
            expected, plain = ask(**options), forwarded()
            injector.prefixes.resize(DEFAULT_BYTES)
            ask(), ask()
            forwarded()
            assert ask(**options) == expected
            assert (forwarded() < plain) == reuses, options


def test_a_prefix_is_of_its_own_system_text(llava: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = [PromptFormat.plain("{image}{text}{answer}\n", system=system) for system in ("Be short. ", "Be long. ")]
    context = _keyed(llava.reader.text_only(DEMONSTRATIONS, prompt_format=forms[0]))
    with _reusing(llava, monkeypatch) as kept:
        for form in forms:
            expected = llava.injector.score(QUERIES[0], list(map(_unkeyed, context)), CHOICES, prompt_format=form)
            for _ in range(3):
                found = llava.injector.score(QUERIES[0], context, CHOICES, prompt_format=form)
                _assert_same(_flat(found), _flat(expected))
        assert len(kept) == 2


def test_positions_of_an_earlier_image_do_not_reach_a_prefix(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qwen-VL keeps the positions of the last prompt on the module: they must not count in a text that has no image."""
    backend = QwenVLBackend.from_pretrained(str(tiny("qwen2-vl")), device="cpu")
    form = backend.default_format
    context = _keyed(backend.reader.text_only(DEMONSTRATIONS, prompt_format=form))
    with _reusing(backend, monkeypatch) as kept:
        for count in (1, 1, 3, 3):
            backend.injector.generate(QUERIES[1:2], [context[:count]], prompt_format=form, max_new_tokens=1)
            backend.injector.generate(QUERIES[2:], [[]], prompt_format=form, max_new_tokens=1)
        continued = list(kept.values())[-1]
    with _reusing(backend, monkeypatch) as kept:
        for _ in range(2):
            backend.injector.generate(QUERIES[:1], [context], prompt_format=form, max_new_tokens=1)
        (computed,) = kept.values()
    for (name, found), (_, expected) in zip(_walk(continued), _walk(computed), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4, msg=name)


def test_a_failed_prefix_leaves_nothing_behind(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    form = backend.default_format
    context = _keyed(backend.reader.text_only(DEMONSTRATIONS, prompt_format=form))

    def ask() -> list[float]:
        return _flat(backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form))

    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    with _reusing(backend, monkeypatch) as kept:
        expected, hooks = ask(), dict(backend.model._forward_hooks)
        hook = backend.model.get_output_embeddings().register_forward_hook(broken)
        with pytest.raises(RuntimeError, match="broken on purpose"):
            ask()
        hook.remove()
        assert not kept
        assert backend.model._forward_hooks == hooks
        for _ in range(2):
            _assert_same(ask(), expected)
        assert len(kept) == 1


def test_a_state_made_in_inference_mode_serves_outside_it(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = LlavaBackend.from_pretrained(str(tiny("llava-1.5")), device="cpu")
    form = backend.default_format
    with _reusing(backend, monkeypatch) as kept:
        with torch.inference_mode():
            context = _keyed(backend.reader.text_only(DEMONSTRATIONS, prompt_format=form))
            made = [backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form) for _ in range(2)]
        made.append(backend.injector.score(QUERIES[0], context, CHOICES, prompt_format=form))
        assert len(kept) == 1
    for scores in made:
        _assert_same(_flat(scores), _flat(made[0]))


def _keyed(tokens: list[FusedTokens], prefix: str = "key") -> list[FusedTokens]:
    return [replace(item, key=f"{prefix}{n}") for n, item in enumerate(tokens)]


def _unkeyed(tokens: FusedTokens) -> FusedTokens:
    return replace(tokens, key=None)


def _numbers(made: list[Generation]) -> list[tuple[tuple[int, ...], list[float]]]:
    return [(answer.token_ids, list(answer.log_probs or ())) for answer in made]


def _flat(scores: list[list[float]]) -> list[float]:
    return [number for row in scores for number in row]


def _assert_same(found: Any, expected: Any) -> None:
    """Equal, but for the noise of floats."""
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for left, right in zip(found, expected, strict=True):
            _assert_same(left, right)
    else:
        assert found == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected)


def _walk(cache: DynamicCache) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a cache, with its name."""
    for place, layer in enumerate(cache.layers):
        for name, value in vars(layer).items():
            values = value.values() if isinstance(value, dict) else [value]
            yield from ((f"{place}.{name}", item) for item in values if isinstance(item, Tensor))


def _nbytes(cache: DynamicCache) -> int:
    return sum(tensor.untyped_storage().nbytes() for _, tensor in _walk(cache))


@contextmanager
def _reusing(backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[DynamicCache, Any]]:
    """Any prefix is long enough to be kept; yields the kept states, each with what it held when it was put."""
    cache = backend.injector.prefixes
    kept: dict[DynamicCache, Any] = {}
    put = PrefixCache.put

    def noted(self: Any, scope: object, keys: Any, state: DynamicCache, nbytes: int) -> None:
        kept[state] = deepcopy(state)
        put(self, scope, keys, state, nbytes)

    with monkeypatch.context() as patch:
        patch.setattr(prefixes, "MIN_TOKENS", 1)
        patch.setattr(PrefixCache, "put", noted)
        cache.resize(DEFAULT_BYTES)
        yield kept
    cache.resize(DEFAULT_BYTES)


@contextmanager
def _counting(backend: TransformersBackend) -> Iterator[Callable[[], int]]:
    """Counts the tokens that are embedded; each call of what is yielded begins again."""
    counts: list[int] = []

    def count(module: object, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        counts.append((args[0] if args else next(iter(kwargs.values()))).numel())

    def taken() -> int:
        total = sum(counts)
        counts.clear()
        return total

    hook = backend.model.get_input_embeddings().register_forward_hook(count, with_kwargs=True)
    try:
        yield taken
    finally:
        hook.remove()
