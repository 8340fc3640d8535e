"""Which parts of a pre-trained encoder are trained."""

from typing import Any


def freeze(encoder: Any, *, blocks: int | None = None) -> None:
    """Keeps an encoder, or its embeddings and lowest blocks, as it is while a model is trained.

    What is frozen is saved with the encoder. Keras compiles it into the steps, so compile the
    model afterwards.

    Args:
        encoder: A `BehaviorEncoder`.
        blocks: Number of blocks that are frozen from below, with all embeddings; 0 freezes the
            embeddings alone, None the whole encoder.

    Raises:
        ValueError: If `blocks` is out of its range, or the encoder has LoRA, which trains
            nothing else of it.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8, num_layers=2)
        >>> freeze(encoder, blocks=1)
        >>> encoder.trainable_variables[0].path
        'behavior_encoder.../transformer/block_1/attention_norm/gamma'

    Reference:
        ULMFiT, https://arxiv.org/abs/1801.06146
    """
    if blocks is not None and not 0 <= blocks <= encoder.num_layers:
        raise ValueError(
            f"blocks must lie in 0..{encoder.num_layers}, the encoder's num_layers, got {blocks}."
        )
    require_no_lora(encoder)
    if not encoder.built:
        encoder.build()
    if blocks is None:
        set_trainable(encoder, False)
        encoder.tuning = {}
    else:
        train_from(encoder, 1 + blocks)
        encoder.tuning = {"frozen_blocks": blocks}


def unfreeze(encoder: Any) -> None:
    """Has the whole of an encoder trained again; compile the model afterwards.

    Args:
        encoder: A `BehaviorEncoder`.

    Raises:
        ValueError: If the encoder has LoRA.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> freeze(encoder)
        >>> unfreeze(encoder)
        >>> len(encoder.trainable_variables) == len(encoder.weights)
        True
    """
    require_no_lora(encoder)
    set_trainable(encoder, True)
    encoder.tuning = {}


def freeze_deep(model: Any) -> None:
    """Has only what leads straight to the logit of a ranking model trained: `wide`, `affinity`.

    A few labels teach that much, while all the rest would learn them by heart. Train so first,
    at a high learning rate, then `unfreeze_deep` and go on at a lower one. Compile the model
    after each. What is frozen besides the encoder is not saved with the model.

    Args:
        model: A `RankingModel` with `wide=True` or `affinity=True`.

    Raises:
        ValueError: If it has neither, or its encoder has LoRA.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = tfrec_llm.models.ClickModel(encoder, affinity=True)
        >>> freeze_deep(model)
        >>> [variable.path.split("/")[-1] for variable in model.trainable_variables]
        ['weight', 'shift']

    Reference:
        Wide & Deep, https://arxiv.org/abs/1606.07792
    """
    if not (model.wide or model.affinity):
        raise ValueError("Nothing leads straight to the logit: make it with wide or affinity.")
    if not model.built:
        model.build()
    freeze(model.encoder)
    _train_deep(model, False)


def unfreeze_deep(model: Any) -> None:
    """Has all of a ranking model trained again; compile it afterwards.

    Args:
        model: A `RankingModel`.

    Raises:
        ValueError: If its encoder has LoRA.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8)
        >>> model = tfrec_llm.models.ClickModel(encoder, affinity=True)
        >>> freeze_deep(model)
        >>> unfreeze_deep(model)
        >>> len(model.trainable_variables) == len(model.weights)
        True
    """
    unfreeze(model.encoder)
    _train_deep(model, True)


def variable_depths(encoder: Any) -> dict[str, int]:
    """Returns how deep below the head each weight of an encoder lies, for `LayerwiseDecay`.

    Args:
        encoder: A `BehaviorEncoder`.

    Returns:
        By the weight's path, from the encoder's name on: 1 in the highest block and the norm
        behind it, 2 in the next block, and so on; the embeddings lie deepest.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(100, emb_dim=8, num_layers=2, name="encoder")
        >>> depths = variable_depths(encoder)
        >>> depths["encoder/item_embedding/table"], depths["encoder/transformer/norm/gamma"]
        (3, 1)
    """
    if not encoder.built:
        encoder.build()
    depths = {}
    for depth, part in enumerate(reversed(encoder_parts(encoder)), 1):
        for each in part:
            for variable in getattr(each, "weights", [each]):
                names = variable.path.split("/")
                start = names.index(encoder.name) if encoder.name in names else 0
                depths["/".join(names[start:])] = depth
    return depths


def encoder_parts(encoder: Any) -> list[list[Any]]:
    """Returns an encoder's layers, or weights of their own, from below: embeddings, then blocks."""
    transformer = encoder.transformer
    embeddings = [encoder.item_embedding]
    if encoder.behavior_embedding is not None:
        embeddings.append(encoder.behavior_embedding)
    if transformer.position_encoding == "learned":
        embeddings.append(transformer.position_table)
    if transformer.norm_input:
        embeddings.append(transformer.first_norm)
    parts = [embeddings, *([block] for block in transformer.blocks)]
    if transformer.norm_output:
        parts[-1].append(transformer.norm)
    return parts


def train_from(encoder: Any, frozen: int) -> None:
    """Has all but the lowest parts of an encoder trained.

    Args:
        encoder: A built `BehaviorEncoder`.
        frozen: Number of its `encoder_parts` that are not.
    """
    set_trainable(encoder, True)
    for part in encoder_parts(encoder)[:frozen]:
        for each in part:
            each.trainable = False


def set_trainable(layer: Any, value: bool) -> None:
    """Sets `trainable` of a layer and of all that is in it."""
    # On TensorFlow an attribute that is set to what it is already passes its setter by, and what
    # lies deeper stays as it was.
    layer.trainable = not value
    layer.trainable = value


def _train_deep(model: Any, value: bool) -> None:
    for layer in model.deep_layers:
        set_trainable(layer, value)
    model.newcomer.trainable = value


def restore_tuning(encoder: Any) -> None:
    """Brings what an encoder notes of `freeze` and `add_lora` about, once it is built anew."""
    from tfrec_llm.training.low_rank import enable_lora

    if not encoder.trainable:
        # Keras takes this up before there are weights, and leaves them trainable.
        set_trainable(encoder, False)
    if "frozen_blocks" in encoder.tuning:
        train_from(encoder, 1 + encoder.tuning["frozen_blocks"])
    if "lora_rank" in encoder.tuning:
        enable_lora(encoder)


def copy_tuning(source: Any, target: Any) -> None:
    """Has a built encoder, fresh from its constructor, frozen or given LoRA as another one is."""
    target.tuning = dict(source.tuning)
    target.trainable = source.trainable
    restore_tuning(target)


def require_no_lora(encoder: Any) -> None:
    """Raises a ValueError if an encoder has LoRA."""
    if "lora_rank" in encoder.tuning:
        raise ValueError(
            "This encoder has LoRA, beside which nothing else of it is trained or changed. Call "
            "merge_lora(encoder) first."
        )
