"""Nothing but the projector learns, and nothing that was injected is ever seen by anyone else."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
from torch import Tensor, nn

from aim_sdk.backend.capabilities import HasVocabulary, Trainable, capability, find
from aim_sdk.backend.interfaces import Backend
from aim_sdk.projectors import KINDS, untrained
from aim_sdk.projectors.base import Projector
from aim_sdk.testing.compare import before_each_module, log_probs, require, require_close, require_same_scores
from aim_sdk.testing.kit import check, needs
from aim_sdk.testing.precision import close
from aim_sdk.testing.samples import CHOICES, DEMONSTRATIONS, QUERIES
from aim_sdk.types import FusedTokens


@check
@needs(Trainable, HasVocabulary)
def check_gradient_reaches_the_projector_only(backend: Backend) -> None:
    """A training step changes the projector, and not one number of the backbone.

    Catches trainable backbones, detached fused tokens, and losses that never see them.
    """
    projector, words = _projector(backend), capability(backend, HasVocabulary).vocabulary
    readings = backend.reader.read(DEMONSTRATIONS[:2], prompt_format=backend.default_format)
    require(not any(reading.hidden.requires_grad for reading in readings), "a reading carries a gradient")
    modules: dict[int, nn.Module] = {}
    with torch.enable_grad(), before_each_module(lambda module: modules.update({id(module): module})):
        context = projector.project(readings)
        (logs,) = log_probs(backend, QUERIES[:1], [context], CHOICES[2:], prompt_format=backend.default_format)
        own = {id(parameter) for parameter in projector.parameters()}
        parameters = [p for module in modules.values() for p in module.parameters() if id(p) not in own]
        frozen = [*{id(p): p for p in [*parameters, words.inputs, words.outputs]}.values()]
        before = [_sample(tensor) for tensor in frozen]
        require(logs.requires_grad, "the answer's log-probabilities carry no gradient to the fused tokens")
        trainable = [p for p in frozen if p.is_leaf and p.requires_grad]  # none, if all is well
        optimizer = torch.optim.SGD([*projector.parameters(), *trainable], 0.1)
        (-logs.sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    reached = [p.grad is not None and bool(p.grad.abs().sum() > 0) for p in projector.parameters()]
    require(any(reached), "no parameter of the projector has a gradient")
    require(all(p.grad is None for p in frozen if p.is_leaf), "a parameter of the backbone has a gradient")
    changed = sum(not torch.equal(_sample(tensor), old) for tensor, old in zip(frozen, before, strict=True))
    require(not changed, f"{changed} of the backbone's {len(frozen)} tensors changed in a training step")


@check
@close("log-probabilities, states", bfloat16=0.004, float16=0.0005)
def check_nothing_stays_injected(backend: Backend) -> None:
    """After a call that fails anywhere inside the backbone, and after a stream that is left early, all is as before.

    Catches hooks and buffers that only a successful call takes back.
    """
    form = backend.default_format
    context = backend.reader.text_only(DEMONSTRATIONS[:2], prompt_format=form)
    before = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=form)
    read = backend.reader.read(DEMONSTRATIONS[:1], prompt_format=form)[0].hidden
    for place in (0, 1, 3, 9, 27):
        _fail_inside(backend, place, context)
    pieces = backend.injector.stream(QUERIES[0], context, prompt_format=form, max_new_tokens=50)
    next(pieces, None)
    getattr(pieces, "close", lambda: None)()
    after = backend.injector.score(QUERIES[0], [], CHOICES, prompt_format=form)
    require_same_scores(after, before, backend, "scores before and after calls that failed")
    again = backend.reader.read(DEMONSTRATIONS[:1], prompt_format=form)[0].hidden
    require_close(again, read, backend, "a reading before and after calls that failed")


@check
@close("log-probabilities, states", bfloat16=0.004, float16=0.0005)
def check_threads_do_not_mix(backend: Backend) -> None:
    """What several threads read, answer and score at once is what they get one by one.

    Catches queries, contexts, caches and injected tokens kept on an object, a module or in a global, where another
    thread finds them. Each call pauses inside the backbone, so that the others come between.
    """
    form = backend.default_format
    fused = backend.reader.text_only(DEMONSTRATIONS, prompt_format=form)
    contexts: list[list[FusedTokens]] = [fused[:2], fused[2:], []]

    def score(place: int) -> list[list[float]]:
        return backend.injector.score(QUERIES[place], contexts[place], CHOICES, prompt_format=form)

    def generate(place: int) -> list[list[float]]:
        (made,) = backend.injector.generate(
            [QUERIES[place]], [contexts[place]], prompt_format=form, max_new_tokens=4, log_probs=True
        )
        return [list(made.log_probs or map(float, made.token_ids))]

    def read(place: int) -> list[list[float]]:
        (reading,) = backend.reader.read([DEMONSTRATIONS[place]], prompt_format=form)
        return reading.hidden.float().tolist()

    work = [(call, place) for call in (score, generate, read) for place in range(3)]
    expected = [call(place) for call, place in work]
    together, pause = Barrier(3), _Pause()

    def at_once(item: tuple[Callable[[int], list[list[float]]], int]) -> list[list[float]]:
        together.wait(60)
        pause.ran = 0
        return item[0](item[1])

    with ThreadPoolExecutor(3) as pool, before_each_module(pause):
        found = list(pool.map(at_once, work))
    for (call, place), one, other in zip(work, found, expected, strict=True):
        what = f"{call.__name__} of sample {place + 1} while two other threads call, and alone"
        require_same_scores(one, other, backend, what)


@check
def check_dtype_and_device(backend: Backend) -> None:
    """Readings, text-only demonstrations, fused tokens and the vocabulary have the backend's `dtype` and `device`.

    Catches silent casts to fp32 or copies to the CPU, which cost memory and time at every query.
    """
    readings = backend.reader.read(DEMONSTRATIONS[:1], prompt_format=backend.default_format)
    text = backend.reader.text_only(DEMONSTRATIONS[:1], prompt_format=backend.default_format)
    tensors = {
        "Reading.hidden": readings[0].hidden,
        "Reading.embeddings": readings[0].embeddings,
        "text_only": text[0].embeddings,
    }
    if (showing := find(backend, HasVocabulary)) is not None:
        with torch.no_grad():
            tensors["projected"] = _projector(backend).project(readings)[0].embeddings
        tensors["vocabulary.inputs"] = showing.vocabulary.inputs
    for name, tensor in tensors.items():
        require(tensor.dtype == backend.dtype, f"{name} is {tensor.dtype}; `dtype` is {backend.dtype}")
        require(tensor.device == backend.device, f"{name} is on {tensor.device}; `device` is {backend.device}")


@check
@needs(HasVocabulary)
def check_saved_projector_is_the_same(backend: Backend) -> None:
    """A projector that is saved and loaded for this backbone gives the same fused tokens, bit for bit.

    Catches fingerprints that differ from one call to the next, and weights that do not survive their file.
    """
    readings = backend.reader.read(DEMONSTRATIONS, prompt_format=backend.default_format)
    showing = capability(backend, HasVocabulary)
    for kind in KINDS:
        projector = untrained(kind, showing.vocabulary)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            projector.save_pretrained(folder)
            loaded = Projector.from_pretrained(folder).attach(showing.vocabulary)
            loaded.check_backbone(backend.fingerprint)
            pairs = zip(projector.project(readings), loaded.project(readings), strict=True)
            same = [torch.equal(one.embeddings, other.embeddings) for one, other in pairs]
        require(all(same), f"a {kind!r} projector gives other fused tokens after it was saved and loaded")


class _Broken(Exception):
    pass


class _Pause(threading.local):
    """Sleeps before some modules of each thread's call, the earlier the more of them."""

    ran = 0

    def __call__(self, module: nn.Module) -> None:
        if self.ran in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256):
            time.sleep(0.004)
        self.ran += 1


def _fail_inside(backend: Backend, place: int, context: list[FusedTokens]) -> None:
    """Generate and read with an exception before the forward of the module number ``place``."""
    form = backend.default_format
    for call in (
        lambda: backend.injector.generate(QUERIES[:1], [context], prompt_format=form, max_new_tokens=2),
        lambda: backend.reader.read(DEMONSTRATIONS[:1], prompt_format=form),
    ):
        left = place

        def fail(module: nn.Module) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise _Broken

        try:
            with before_each_module(fail):
                call()
        except _Broken:
            continue


def _sample(tensor: Tensor) -> Tensor:
    """Some 64 values of a tensor."""
    return tensor.detach().flatten()[:: max(1, tensor.numel() // 64)].clone()


def _projector(backend: Backend) -> Projector:
    """An untrained carrier, trainable, on the backbone's device."""
    words = capability(backend, HasVocabulary).vocabulary
    return untrained("carrier", words).to(backend.device).requires_grad_()
