"""The device and the precision of a model."""

import os

import torch

from salema.files import SalemaError


def pick_device(device: str) -> torch.device:
    """The device with this name; `auto` is the GPU where there is one, else the CPU.

    Of several GPUs, `auto` is the one of this process under torchrun or SLURM.
    """
    if device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        local = os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0
        return torch.device("cuda", int(local) % torch.cuda.device_count())
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise SalemaError(f"no such device: {device} (use cpu, or auto)") from error
    return place


def pick_precision(precision: str, device: torch.device) -> str:
    """`precision` itself; `auto` is bf16 where the hardware multiplies it natively, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )
    return "bf16" if native else "fp32"
