"""Carriers: one token of a demonstration takes on what the image made the backbone expect; all others stay."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from aim_sdk.errors import InputError, unknown
from aim_sdk.layers import LAST
from aim_sdk.projectors.base import Projector
from aim_sdk.projectors.batch import ReadingBatch
from aim_sdk.projectors.norm import LayersNorm
from aim_sdk.types import Reading, Vocabulary

Place = Literal["after", "before"]
"""Which text token carries: the one after the place where the image stood, or the one before it."""

_FIT_ROWS: Final = 2**15
"""Rows of a vocabulary that a start is fitted to."""
_START_RIDGE: Final = 1e-2
_FIT_RIDGE: Final = 0.1
_ALIKE: Final = 1e-6
"""Mean square of normed states round their mean; at less than that they do not tell readings apart."""


class Carrier(Projector):
    """Moves the reading ``h`` at the last token before the answer onto the text token where the image stood.

    In a causal LM that reading is what the image has made the backbone expect next. With ``v`` the kind's
    `value` of ``h`` and ``g = sigmoid(gate)`` the carrier's own embedding ``e`` becomes ``(1 - g) e + g v``. All
    other tokens keep their embeddings, so the answer's format survives.

    The token before the answer never carries, because the answer is predicted from it, and neither does the answer:
    what stands too late is held to the token before that one, and a demonstration with fewer than two tokens before its
    answer is left as it is.

    Args:
        place: ``"before"``: the text token before the image, or the one after it if there is none before.
            ``"after"``: always the one after it. In most chat templates a line end or a blank stands before the image,
            and the question's first word after it; ``benchmarks/projectors/carrier_place.py`` measures both.

    Raises:
        InputError: an unknown place.
    """

    gate: nn.Parameter

    def __init__(
        self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, place: Place = "before"
    ) -> None:
        if place not in get_args(Place):
            raise InputError(unknown("carrier place", place, get_args(Place)))
        super().__init__(hidden_size, embedding_size, layers=layers, place=place)
        self.place = place

    def rate(self, name: str) -> float:
        """10 for gate and norms: the rate that suits them destroys W (measured on pocket: 3e-4, and 3e-5 for W)."""
        return 10.0 if name == "gate" or "norm" in name else 1.0

    @abstractmethod
    def value(self, last: Float[Tensor, "batch width"]) -> Float[Tensor, "batch embed"]:
        """Map readings at the last token before the answer to carriers."""

    def places(self, batch: ReadingBatch) -> Int[Tensor, " batch"]:
        """The index of each demonstration's carrier."""
        chosen = batch.image_position
        if self.place == "before":
            chosen = (chosen - 1).clamp_min(0)
        return torch.minimum(chosen, (batch.answer_start - 2).clamp_min(0))

    def forward(self, batch: ReadingBatch) -> Float[Tensor, "batch tokens embed"]:
        rows, places = torch.arange(len(batch.hidden), device=batch.hidden.device), self.places(batch)
        value = self.value(batch.hidden[rows, (batch.answer_start - 1).clamp_min(0)])
        own, gate = batch.embeddings[rows, places], torch.sigmoid(self.gate)
        carrier = ((1 - gate) * own.to(value) + gate * value).to(own)
        carrier = torch.where((batch.answer_start > 1)[:, None], carrier, own)
        return batch.embeddings.index_put((rows, places), carrier)


class CarrierProjector(Carrier):
    """A carrier that is a soft token: ``v = W LN(s)`` with ``s = E_in^T softmax(E_out h)``, from the studies on pocket.

    ``s`` is the embedding of the token that the backbone expects. W starts as the RMS of the input embeddings times the
    identity, so that a carrier has a typical token's scale; that works without training (`untrained`). E_in
    and E_out are the backbone's own: `bind` takes them, an artifact does not hold them.

    Further layers may stand before the last one: with ``h'`` their readings, ``U LN(h')`` is added, U zero at first.
    Training begins by fitting U (`fit`).

    Raises:
        InputError: the last of ``layers`` is not -1, which alone the LM head understands.
    """

    kind = "carrier"

    def __init__(
        self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, place: Place = "before"
    ) -> None:
        super().__init__(hidden_size, embedding_size, layers=layers, place=place)
        if self.layers[-1] != -1:
            raise InputError(
                f"a carrier projector of layers {self.layers}: expected -1 as the last of them, because the LM head "
                "reads no other layer. Next: use kind 'carrier-linear'."
            )
        self.norm = nn.LayerNorm(embedding_size)
        self.weight = nn.Parameter(torch.eye(embedding_size))
        self.gate = nn.Parameter(torch.tensor(4.0))
        if others := len(self.layers) - 1:
            self.others_norm = LayersNorm(hidden_size, others)
            self.others = nn.Linear(others * hidden_size, embedding_size, bias=False)
            nn.init.zeros_(self.others.weight)
        self._vocabulary: tuple[Tensor, Tensor] | None = None

    def start(self, vocabulary: Vocabulary) -> None:
        self.weight.copy_(torch.eye(self.embedding_size) * vocabulary.fingerprint.embedding_rms)

    @torch.no_grad()
    def calibrate(self, readings: Sequence[Reading]) -> None:
        """Take away what the earlier layers say of any demonstration: U learns what tells them apart."""
        if len(self.layers) > 1:
            last = torch.stack([_before_answer(reading) for reading in readings])
            others = last[:, : -self.hidden_size].to(self.weight)
            self.others_norm.bias.sub_(self.others_norm(others).mean(0))

    @torch.no_grad()
    def fit(self, readings: Iterable[Reading]) -> int:
        """Let the carrier hold what the image looks like, next to what it is called.

        U becomes the ridge regression of an image's mean visual token on LN(h') at the last token before the answer,
        both centred: a carrier then says in the inner LM's own visual terms how the image differs from others. Nothing
        changes if there is no earlier layer, or fewer than two readings that show their image, or none that differs.
        """
        seen = [(_before_answer(one), one.visual) for one in readings if one.visual is not None]
        if len(self.layers) == 1 or len(seen) < 2:
            return 0
        others = self.others_norm(torch.stack([last[: -self.hidden_size] for last, _ in seen]).to(self.weight))
        visual = torch.stack([visual for _, visual in seen]).to(self.weight)
        differing = others - others.mean(0)
        if not (differing.square().mean() > _ALIKE and visual.isfinite().all()):  # or they hold NaN
            return 0
        self.others_norm.bias.sub_(others.mean(0))
        self.others.weight.copy_(_ridge(differing, visual - visual.mean(0), _FIT_RIDGE).T)
        return len(seen)

    def bind(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = _shared_rows(vocabulary)

    def value(self, last: Float[Tensor, "batch width"]) -> Float[Tensor, "batch embed"]:
        if self._vocabulary is None:
            raise InputError(
                "a carrier needs its backbone's embeddings; call projector.attach(backend.vocabulary) first."
            )
        outputs, inputs = self._vocabulary
        others, last = last[:, : -self.hidden_size], last[:, -self.hidden_size :]
        expected = F.softmax(F.linear(last.to(outputs), outputs).float(), -1).to(inputs) @ inputs
        value = F.linear(self.norm(expected.to(self.weight)), self.weight)
        return value + self.others(self.others_norm(others.to(self.weight))) if others.shape[1] else value


class LinearCarrierProjector(Carrier):
    """A carrier that is linear in the reading: ``v = W LN(h - mean)``, from the studies on pocket.

    The mean is what any demonstration makes the backbone expect there; `calibrate` takes it from readings, and it
    is saved with the weights. W starts where it maps the direction of a token in the LM head to that token's input
    embedding: the ridge regression of LN(E_in) on LN(E_out - its mean) over at most 32,768 rows of the vocabulary,
    scaled so that a carrier has the RMS of the input embeddings. With tied embeddings that is close to their RMS times
    the identity. Of several layers the last one named starts with this W, the others with zero.
    """

    kind = "carrier-linear"
    mean: Tensor

    def __init__(
        self, hidden_size: int, embedding_size: int, *, layers: Sequence[int] = LAST, place: Place = "before"
    ) -> None:
        super().__init__(hidden_size, embedding_size, layers=layers, place=place)
        self.register_buffer("mean", torch.zeros(self.width))
        self.norm = LayersNorm(hidden_size, len(self.layers))
        rest = torch.zeros(embedding_size, self.width - hidden_size)
        self.weight = nn.Parameter(torch.cat([rest, torch.eye(embedding_size, hidden_size)], 1))
        self.gate = nn.Parameter(torch.tensor(4.0))

    def start(self, vocabulary: Vocabulary) -> None:
        outputs, inputs = (rows.float() for rows in _shared_rows(vocabulary, _FIT_ROWS))
        shown = F.layer_norm(outputs - outputs.mean(0), outputs.shape[1:])
        meant = F.layer_norm(inputs, inputs.shape[1:])
        fitted = _ridge(shown, meant, _START_RIDGE)  # (hidden, embed)
        fitted *= vocabulary.fingerprint.embedding_rms / (shown @ fitted).square().mean().sqrt()
        self.weight.zero_()[:, -self.hidden_size :] = fitted.T

    @torch.no_grad()
    def calibrate(self, readings: Sequence[Reading]) -> None:
        """Take the mean of readings at the last token before their answers."""
        last = [_before_answer(reading).float() for reading in readings]
        self.mean.copy_(torch.stack(last).mean(0))

    def value(self, last: Float[Tensor, "batch width"]) -> Float[Tensor, "batch embed"]:
        return F.linear(self.norm(last.to(self.weight) - self.mean), self.weight)


def _ridge(
    inputs: Float[Tensor, "rows in"], targets: Float[Tensor, "rows out"], share: float
) -> Float[Tensor, "in out"]:
    """Ridge regression of targets on inputs; the penalty is a share of the inputs' mean sum of squares."""
    square = inputs.T @ inputs
    added = share * square.diagonal().mean() * torch.eye(len(square), device=square.device)
    solved: Tensor = torch.linalg.solve(square + added, inputs.T @ targets)
    return solved


def _before_answer(reading: Reading) -> Float[Tensor, " width"]:
    """The reading at the last token before the answer."""
    return reading.hidden[max(0, reading.answer_start - 1)]


def _shared_rows(vocabulary: Vocabulary, limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Output and input embeddings of the tokens that have both (either matrix may have spare rows).

    At most ``limit`` of them, evenly spaced.
    """
    outputs, inputs = vocabulary.outputs.detach(), vocabulary.inputs.detach()
    rows = min(len(outputs), len(inputs))
    if limit is None or rows <= limit:
        return outputs[:rows], inputs[:rows]
    chosen = torch.arange(limit, device=outputs.device) * rows // limit
    return outputs[chosen], inputs[chosen]
