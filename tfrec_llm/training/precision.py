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
    if keras.distribution.list_devices("gpu") or keras.distribution.list_devices("tpu"):
        return "mixed_bfloat16"
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"
