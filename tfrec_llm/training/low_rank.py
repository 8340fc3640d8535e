"""Fine-tuning by a few weights of low rank beside the pre-trained ones."""

from collections.abc import Iterator
from typing import Any

from tfrec_llm.training.fine_tuning import set_trainable


def add_lora(encoder: Any, *, rank: int = 8, alpha: float | None = None) -> None:
    """Adds trained maps of low rank to an encoder's blocks and freezes all else in it.

    Each dense map `W` of attention and feed-forward becomes `W + alpha / rank * A B`. `A B` is
    zero at first, so the encoder starts as it was. The maps are saved with the encoder, and
    training goes on where it was. Compile the model afterwards.

    Args:
        encoder: A `BehaviorEncoder`.
        rank: Width of `A` and height of `B`.
        alpha: How much the maps weigh; None stands for `rank`.

    Raises:
        ValueError: If `rank` is not positive, or the encoder has LoRA already.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8, num_layers=1)
        >>> add_lora(encoder, rank=2)
        >>> sum(variable.shape[0] * variable.shape[1] for variable in encoder.trainable_variables)
        256

    Reference:
        LoRA: Low-Rank Adaptation of Large Language Models, https://arxiv.org/abs/2106.09685
    """
    if rank < 1:
        raise ValueError(f"rank must be positive, got {rank}.")
    if "lora_rank" in encoder.tuning:
        raise ValueError("This encoder has LoRA already. Call merge_lora(encoder) first.")
    if not encoder.built:
        encoder.build()
    encoder.tuning = {"lora_rank": rank, "lora_alpha": float(rank if alpha is None else alpha)}
    enable_lora(encoder)


def merge_lora(encoder: Any) -> None:
    """Adds what LoRA has learnt to the weights it stands beside, and takes its maps away.

    Outputs stay as they are. The encoder is an ordinary one again, trainable as a whole; compile
    the model before training on.

    Args:
        encoder: A `BehaviorEncoder` that `add_lora` was called on.

    Raises:
        ValueError: If the encoder has no LoRA.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8, num_layers=1)
        >>> add_lora(encoder)
        >>> merge_lora(encoder)
        >>> len(encoder.trainable_weights) == len(encoder.weights)
        True
    """
    if "lora_rank" not in encoder.tuning:
        raise ValueError("This encoder has no LoRA to merge. Call add_lora(encoder) first.")
    for projection in _projections(encoder):
        projection.merge_lora()
    encoder.tuning = {}
    set_trainable(encoder, True)


def enable_lora(encoder: Any) -> None:
    """Makes the maps that a built encoder notes in `tuning`."""
    set_trainable(encoder, True)
    for variable in encoder.trainable_variables:
        variable.trainable = False
    for projection in _projections(encoder):
        projection.enable_lora(encoder.tuning["lora_rank"], lora_alpha=encoder.tuning["lora_alpha"])


def _projections(encoder: Any) -> Iterator[Any]:
    for block in encoder.transformer.blocks:
        yield from (block.attention.project_in, block.attention.project_out)
        yield from (block.feed_forward.expand, block.feed_forward.contract)
