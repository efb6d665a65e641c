"""Paths, seeds and sizes that the stages share."""

import os
from pathlib import Path
from typing import Final

from aim_backends.pocket import model

WORK: Final = Path(__file__).parent / "work"
PACKAGES: Final = WORK / "npm"
DRAWINGS: Final = WORK / "drawings"
CATALOG: Final = WORK / "catalog.json"
WIDE: Final = WORK / "wide.json"
FEATURES: Final = WORK / "features.safetensors"
WIDE_FEATURES: Final = WORK / "wide_features.safetensors"
EASY_VQA: Final = WORK / "easy_vqa.safetensors"
RESULTS: Final = Path(__file__).parents[1] / "results"
SHIPPED: Final = model.DATA

SEED: Final = 7
HELD_OUT_CONCEPTS: Final = 0.15
EXTRA_VIEWS: Final = 3
WIDE_VIEWS: Final = 2
THREADS: Final = int(os.environ.get("OMP_NUM_THREADS", "2"))
