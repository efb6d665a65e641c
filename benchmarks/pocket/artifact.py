"""Stage ``projector``: the trained carrier as the artifact that the backend ships."""

import torch
from safetensors import safe_open

from aim_backends.pocket.backend import PocketBackend
from aim_sdk.projectors import CarrierProjector
from benchmarks.pocket import carrier
from benchmarks.pocket.config import SEED, SHIPPED, WORK


def publish() -> None:
    """Write ``data/projector/``, with the shipped backbone's fingerprint and a summary of the training."""
    pocket = carrier.FrozenPocket()
    projector: CarrierProjector = carrier.load("carrier_shipped", pocket).to(torch.bfloat16)
    projector.fingerprint = PocketBackend(pocket.model).fingerprint
    with safe_open(WORK / "carrier.safetensors", "pt") as checkpoint:
        steps = int(checkpoint.metadata()["step"])
    projector.summary = {
        "episodes": "name binding, category labels, easy-VQA facts and answer styles, k = 2..8; see benchmarks/pocket",
        "steps": steps,
        "episodes_a_step": carrier.EPISODES,
        "seed": SEED,
    }
    (SHIPPED / "projector" / "README.md").unlink(missing_ok=True)  # a card that is there would stay
    projector.save_pretrained(SHIPPED / "projector")
