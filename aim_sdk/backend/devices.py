"""Where and in what precision a backbone runs: user input checked before anything large is loaded."""

from __future__ import annotations

import torch

from aim_sdk.errors import DeviceError, did_you_mean, unknown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions a backbone may run in, by name."""


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Return the device; None takes a GPU if there is one.

    Raises:
        DeviceError: malformed, or not on this machine.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError) as error:
        here = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            here.append("mps")
        raise DeviceError(
            f"device {str(device)!r} cannot be used here.{did_you_mean(str(device), here)} "
            f"This machine has: {', '.join(here)}."
        ) from error
    return found


def resolve_dtype(dtype: str | torch.dtype | None, default: torch.dtype) -> torch.dtype:
    """Return the dtype by name or as it is; None takes ``default``.

    Raises:
        DeviceError: not a floating-point precision that a backbone runs in.
    """
    if dtype is None:
        return default
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise DeviceError(unknown("dtype", name, DTYPES))
    return DTYPES[name]
