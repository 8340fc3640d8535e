"""Memory that a step gives back and the next one wants again."""

import ctypes
import sys

# Numbers of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keeps freed buffers in the process, where the next training step takes them up.

    glibc hands big buffers back to the system as soon as they are free, and
    every step pays for fresh pages: a quarter of a step's time was measured.
    The option is of the whole process. Models of this library call it when
    they are compiled; other systems than Linux with glibc are left as they are.

    Returns:
        Whether the option is set.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 1 << 30))
