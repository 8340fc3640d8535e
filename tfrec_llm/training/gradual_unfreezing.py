"""An encoder that joins in from the top, block by block."""

from typing import Any

import keras
from keras import ops

from tfrec_llm.training.fine_tuning import train_from, unfreeze


class GradualUnfreezing(keras.callbacks.Callback):
    """Trains the head first, then the encoder's highest block, the next one, its embeddings last.

    A head that is new sends large, useless gradients down; once it has learnt something, the
    blocks follow without losing what they know. The optimizer keeps its state throughout. After
    training the whole encoder is trainable. Which part is trained depends on the epoch alone, so
    a training that is resumed by `initial_epoch` goes on rightly.

    Args:
        encoder: The `BehaviorEncoder` inside the model that is trained.
        every: Epochs after which the next part joins in.

    Raises:
        ValueError: If `every` is not positive; when training begins, if the encoder has LoRA,
            its parts were frozen when the optimizer was built, or the optimizer is a
            `LossScaleOptimizer` on JAX.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8, num_layers=2)
        >>> callback = GradualUnfreezing(encoder, every=2)
        >>> [callback.frozen_at(epoch) for epoch in (0, 2, 4, 6)]
        [3, 2, 1, 0]

    Reference:
        ULMFiT, https://arxiv.org/abs/1801.06146
    """

    def __init__(self, encoder: Any, *, every: int = 1):
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be positive, got {every}.")
        self.encoder = encoder
        self.every = every
        self._frozen: int | None = None

    def frozen_at(self, epoch: int) -> int:
        """Returns how many parts are frozen in an epoch, counted from 0: embeddings and blocks."""
        return max(0, 1 + self.encoder.num_layers - epoch // self.every)

    def on_train_begin(self, logs=None):
        self._frozen = None
        unfreeze(self.encoder)
        # Of all weights, so that each finds its state when it joins in.
        optimizer, variables = self.model.optimizer, self.model.trainable_variables
        if not self.model.built:
            raise ValueError(
                "The model has not been built, so its weights are not known yet. Call "
                "model.build(), or the model on a batch, before fit()."
            )
        if not optimizer.built:
            optimizer.build(variables)
        elif len(optimizer._trainable_variables) != len(variables):
            raise ValueError(
                "The optimizer was built while a part of the model was frozen. Call "
                "unfreeze(encoder) and compile the model with a new optimizer before fit()."
            )
        on_jax = keras.backend.backend() == "jax"
        if on_jax and isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "GradualUnfreezing does not work with LossScaleOptimizer on JAX. Train in "
                "bfloat16, which needs no scaling, or on TensorFlow."
            )

    def on_epoch_begin(self, epoch, logs=None):
        frozen = self.frozen_at(epoch)
        train_from(self.encoder, frozen)
        if frozen != self._frozen:
            if keras.backend.backend() == "jax":
                _step_those_trained(self.model)
            # Keras compiles what is trainable into the step.
            self.model.make_train_function(force=True)
        self._frozen = frozen

    def on_epoch_end(self, epoch, logs=None):
        # What is saved or averaged between epochs is the whole model.
        unfreeze(self.encoder)

    def on_train_end(self, logs=None):
        self.model.make_train_function(force=True)
        vars(self.model.optimizer).pop("stateless_apply", None)


def _step_those_trained(model: keras.Model) -> None:
    """Has the optimizer, on JAX, step those of its weights that the model trains just now.

    Keras' own version of the method wants all that the optimizer was built with.
    """
    optimizer = model.optimizer
    trained = model.trainable_variables
    # Read by averages over weights; copied, as the buffers that Keras holds are given away.
    ids = {id(variable) for variable in trained}
    others = [(v, ops.copy(v.value)) for v in optimizer._trainable_variables if id(v) not in ids]

    def stateless_apply(optimizer_variables, grads, trainable_variables):
        state = [
            *others,
            *zip(trained, trainable_variables, strict=True),
            *zip(optimizer.variables, optimizer_variables, strict=True),
        ]
        with keras.StatelessScope(state_mapping=state) as scope:
            optimizer.apply(grads, trained)
        return tuple(
            [scope.get_current_value(each) for each in variables]
            for variables in (trained, optimizer.variables)
        )

    optimizer.stateless_apply = stateless_apply
