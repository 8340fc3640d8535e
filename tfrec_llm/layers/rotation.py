"""Rotary positions."""

from keras import ops


def rotate(x, positions, *, wavelength: float = 10_000.0):
    """Turns pairs of features by angles that grow with the position.

    After it, the product of a query and a key depends on the distance of
    their positions only.

    Args:
        x: Float tensor `[rows, heads, length, head_dim]`, `head_dim` even.
        positions: Integer tensor `[rows, length]`.
        wavelength: Longest wavelength, in positions.

    Returns:
        Float tensor of the shape and dtype of `x`.

    Reference:
        RoFormer, https://arxiv.org/abs/2104.09864
    """
    half = x.shape[-1] // 2
    rates = wavelength ** (-ops.arange(half, dtype="float32") / half)
    angles = ops.cast(positions, "float32")[:, None, :, None] * rates
    cos, sin = ops.cast(ops.cos(angles), x.dtype), ops.cast(ops.sin(angles), x.dtype)
    first, second = ops.split(x, 2, axis=-1)
    return ops.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
