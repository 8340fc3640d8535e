"""Which arithmetic trains fastest on this machine."""

from pathlib import Path

import keras


def fast_precision() -> str:
    """Returns the dtype policy that trains fastest here: bfloat16 where hardware multiplies it.

    Returns:
        `"mixed_bfloat16"` on a GPU or TPU and on processors with AVX512_BF16
        or AMX, else `"float32"`: elsewhere bfloat16 is emulated and slow.

    Example:
        >>> fast_precision() in ("float32", "mixed_bfloat16")
        True
    """
    if _devices("gpu") or _devices("tpu"):
        return "mixed_bfloat16"
    return "mixed_bfloat16" if processor_multiplies_bfloat16() else "float32"


def processor_multiplies_bfloat16() -> bool:
    """Returns whether the processor has instructions for products of bfloat16."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _devices(kind: str) -> list[str]:
    try:
        return keras.distribution.list_devices(kind)
    except RuntimeError:  # JAX's answer where there is none
        return []
