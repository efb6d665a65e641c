"""The pocket language model is transformers' Llama, and neither padding nor the cache changes what it computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from aim_backends.pocket.cache import KVCache
from aim_backends.pocket.lm import Llama, LlamaSpec

transformers = pytest.importorskip("transformers")

SPEC = LlamaSpec(vocabulary=97, hidden=24, intermediate=40, layers=3, heads=3, key_value_heads=1, head_size=8)


@pytest.fixture(scope="module")
def reference() -> "transformers.LlamaForCausalLM":
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=SPEC.vocabulary,
        hidden_size=SPEC.hidden,
        intermediate_size=SPEC.intermediate,
        num_hidden_layers=SPEC.layers,
        num_attention_heads=SPEC.heads,
        num_key_value_heads=SPEC.key_value_heads,
        head_dim=SPEC.head_size,
        rope_theta=SPEC.rope_theta,
        rms_norm_eps=SPEC.norm_eps,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def lm(reference: "transformers.LlamaForCausalLM") -> Llama:
    return Llama.from_state({name: tensor.clone() for name, tensor in reference.state_dict().items()}, SPEC)


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, SPEC.vocabulary, (2, 11), generator=torch.Generator().manual_seed(1))


def test_equals_transformers(reference: "transformers.LlamaForCausalLM", lm: Llama, ids: Tensor) -> None:
    with torch.no_grad():
        expected = reference(ids).logits
    torch.testing.assert_close(lm.head(lm(lm.embed(ids))), expected, atol=1e-4, rtol=1e-4)


def test_equals_transformers_on_left_padded_prompts(
    reference: "transformers.LlamaForCausalLM", lm: Llama, ids: Tensor
) -> None:
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = reference(ids, attention_mask=mask, position_ids=positions).logits
    found = lm.head(lm(lm.embed(ids), attention_mask=mask))
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(lm: Llama, ids: Tensor, side: str) -> None:
    alone = lm(lm.embed(ids[:1]))
    padding = torch.full((1, 5), 3)
    parts = [padding, ids[:1]] if side == "left" else [ids[:1], padding]
    masks = [torch.zeros_like(padding), torch.ones_like(ids[:1])]
    mask = torch.cat(masks if side == "left" else masks[::-1], 1)
    padded = lm(lm.embed(torch.cat(parts, 1)), attention_mask=mask)
    torch.testing.assert_close(padded[mask.bool()], alone[0], atol=1e-5, rtol=1e-5)


def test_neighbours_in_a_batch_change_nothing(lm: Llama, ids: Tensor) -> None:
    torch.testing.assert_close(lm(lm.embed(ids))[:1], lm(lm.embed(ids[:1])), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("steps", [(11,), (7, 4), (5, 3, 1, 1, 1)])
def test_the_cache_changes_nothing(lm: Llama, ids: Tensor, steps: tuple[int, ...], padded: bool) -> None:
    mask = torch.ones_like(ids)
    if padded:
        mask[1, :3] = 0
    full = lm(lm.embed(ids), attention_mask=mask)
    cache, parts, end = KVCache(), [], 0
    for piece in ids.split(list(steps), 1):
        end += piece.shape[1]
        parts.append(lm(lm.embed(piece), attention_mask=mask[:, :end] if padded else None, cache=cache))
    assert len(cache) == ids.shape[1]
    torch.testing.assert_close(torch.cat(parts, 1)[mask.bool()], full[mask.bool()], atol=1e-5, rtol=1e-5)


def test_a_prefix_is_read_once_and_shared_by_a_batch(lm: Llama, ids: Tensor) -> None:
    prefix = torch.randint(0, SPEC.vocabulary, (1, 6), generator=torch.Generator().manual_seed(2))
    cache = KVCache()
    lm(lm.embed(prefix), cache=cache)
    mask = torch.ones(2, 6 + ids.shape[1])
    mask[0, 6:9] = 0  # the first query is shorter
    reused = lm(lm.embed(ids), attention_mask=mask, cache=cache.expand(2))
    whole = lm(lm.embed(torch.cat([prefix.expand(2, -1), ids], 1)), attention_mask=mask)
    kept = mask[:, 6:].bool()
    torch.testing.assert_close(reused[kept], whole[:, 6:][kept], atol=1e-5, rtol=1e-5)
    assert len(cache) == 6, "an expanded cache must not write into its origin"
    assert len(cache.copy()) == 6


def test_copies_of_a_cache_grow_apart(lm: Llama, ids: Tensor) -> None:
    first, second = ids[:1], ids[1:]
    origin = KVCache()
    lm(lm.embed(first[:, :5]), cache=origin)
    lm(lm.embed(first[:, 5:6]), cache=origin)  # written into the room after the first five
    copy = origin.copy()
    lm(lm.embed(second[:, :1]), cache=origin)
    grown = lm(lm.embed(first[:, 6:]), cache=copy)
    torch.testing.assert_close(grown, lm(lm.embed(first))[:, 6:], atol=1e-5, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_caches_hold_what_was_appended_whatever_others_do(data: st.DataObject) -> None:
    """Caches made from one another in any way, each with what it has to hold beside it."""
    caches = [KVCache()]
    expected = [torch.empty(1, 1, 0, 2)]
    for number in range(data.draw(st.integers(1, 12))):
        place = data.draw(st.integers(0, len(caches) - 1))
        cache, held = caches[place], expected[place]
        change = data.draw(st.sampled_from(["extend", "copy", "expand", "select"]))
        if change == "extend":
            new = torch.full((len(held), 1, data.draw(st.integers(1, 20)), 2), float(number))
            expected[place] = torch.cat([held, new], 2)
            keys, values = cache.extend(0, new, -new)
            assert torch.equal(keys, expected[place])
            assert torch.equal(values, -expected[place])
        elif change == "copy":
            caches.append(cache.copy())
            expected.append(held)
        elif change == "expand" and len(held) == 1 and len(cache):
            batch = data.draw(st.integers(1, 3))
            caches.append(cache.expand(batch))
            expected.append(held.expand(batch, -1, -1, -1))
        elif change == "select" and len(cache):
            rows = torch.tensor(data.draw(st.lists(st.integers(0, len(held) - 1), min_size=1, max_size=3)))
            caches.append(cache.select(rows))
            expected.append(held[rows])
    for cache, held in zip(caches, expected, strict=True):
        assert len(cache) == held.shape[2]
        if len(cache):
            copy = cache.copy()
            last = torch.full((len(held), 1, 1, 2), -1.0)
            keys, values = copy.extend(0, last, last)
            assert torch.equal(keys, torch.cat([held, last], 2))
            assert torch.equal(values, torch.cat([-held, last], 2))
            assert cache.nbytes > 0


def test_decoding_writes_where_there_is_room() -> None:
    cache, token = KVCache(), torch.zeros(1, 1, 1, 2)
    places = [cache.extend(0, torch.zeros(1, 1, 400, 2), torch.zeros(1, 1, 400, 2))[0].data_ptr()]
    places += [cache.extend(0, token, token)[0].data_ptr() for _ in range(150)]
    assert len(set(places)) <= 5
    assert cache.nbytes >= 2 * len(cache) * token.nbytes


@pytest.mark.parametrize("batch", [1, 2, 8, 9])
def test_a_batch_decodes_as_each_row_alone(lm: Llama, batch: int) -> None:
    """A few rows are multiplied in another order."""
    ids = torch.randint(0, SPEC.vocabulary, (batch, 6), generator=torch.Generator().manual_seed(3))
    cache = KVCache()
    lm(lm.embed(ids[:, :5]), cache=cache)
    found = lm.head(lm(lm.embed(ids[:, 5:]), cache=cache)[:, -1])
    alone = torch.stack([lm.head(lm(lm.embed(row[None]))[0, -1]) for row in ids])
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)


def test_gradients_reach_the_embeddings_and_nothing_else(lm: Llama, ids: Tensor) -> None:
    embeddings = lm.embed(ids).clone().requires_grad_()
    lm(embeddings).sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in lm.parameters())


def test_lora_is_merged_into_the_weights_it_names(lm: Llama) -> None:
    name = "layers.1.self_attn.q_proj"
    before = {key: value.clone() for key, value in lm.state_dict().items()}
    down, up = torch.randn(2, SPEC.hidden), torch.randn(SPEC.hidden, 2)
    lm.merge_lora({f"{name}.lora_a": down, f"{name}.lora_b": up})
    for key, value in lm.state_dict().items():
        expected = before[key] + up @ down if key == f"{name}.weight" else before[key]
        torch.testing.assert_close(value, expected)


def test_attention_equals_transformers(lm: Llama, reference: "transformers.LlamaForCausalLM", ids: Tensor) -> None:
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        expected = reference(ids, output_attentions=True).attentions
    reference.set_attn_implementation("sdpa")
    for last in (1, 4):
        rows = torch.stack([layer[:, :, -last:].mean((1, 2)) for layer in expected])
        torch.testing.assert_close(lm.attention(lm.embed(ids), last), rows, atol=1e-5, rtol=1e-4)


def test_attention_of_a_layer_is_the_softmax_by_hand(lm: Llama, ids: Tensor) -> None:
    x = lm.embed(ids[:1])
    layer = lm.layers[0]
    normed, length = layer.input_layernorm(x)[0], x.shape[1]

    def rotated(vectors: Tensor) -> Tensor:  # (T, head_size), each pair (i, i + half) as a complex number
        half = SPEC.head_size // 2
        angles = torch.arange(length)[:, None] * SPEC.rope_theta ** (-torch.arange(half) / half)
        turned = torch.complex(vectors[:, :half], vectors[:, half:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([turned.real, turned.imag], 1)

    keys = rotated(layer.self_attn.k_proj(normed))
    heads = layer.self_attn.q_proj(normed).split(SPEC.head_size, 1)
    rows = [(rotated(head)[-1] @ keys.T / SPEC.head_size**0.5).softmax(0) for head in heads]
    found = lm.attention(x, 1)
    torch.testing.assert_close(found[0, 0], torch.stack(rows).mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.sum(-1), torch.ones(SPEC.layers, 1))
