"""Learning rates that fall from the head of a model to its lowest layers."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tfrec_llm.optimizers.row_gradients import add_up_all
from tfrec_llm.optimizers.wrapping_optimizer import WrappingOptimizer


@keras.saving.register_keras_serializable(package="tfrec_llm")
class LayerwiseDecay(WrappingOptimizer):
    """Slows another optimizer down by `decay ** depth`, depth by depth below the head.

    What a pre-trained encoder's lowest layers know is general and best kept, so they move least
    when the model is fine-tuned; the head, which is new, learns at the full rate. The weight decay
    of the inner optimizer slows down alike. Rows that occur repeatedly in the gradient of a table
    are added up for any inner optimizer.

    Learning rate, clipping, schedules and the like are the inner optimizer's. An optimizer that
    takes no steps itself, such as `Lookahead` or `LossScaleOptimizer`, goes around this one.

    Args:
        inner_optimizer: The optimizer that takes the steps, or its name.
        depths: Depth of weights by path, as `tfrec_llm.training.variable_depths` gives it; a
            path may lack the names of the models around. Weights that are not in it learn at the
            full rate.
        decay: Factor from one depth to the next, above 0 up to 1.
        name: Name of the optimizer.

    Raises:
        ValueError: If `decay` is out of its range, the inner optimizer takes no steps itself,
            or none of the weights that are trained is in `depths`.

    Example:
        >>> encoder = tfrec_llm.models.BehaviorEncoder(vocab_size=100, emb_dim=8, num_layers=2)
        >>> depths = tfrec_llm.training.variable_depths(encoder)
        >>> optimizer = LayerwiseDecay("adam", depths=depths, decay=0.8)
        >>> optimizer.build(encoder.trainable_variables)
        >>> [round(optimizer.factor(encoder.weights[place]), 3) for place in (0, -1)]
        [0.512, 0.8]

    Reference:
        BEiT, https://arxiv.org/abs/2106.08254;
        ULMFiT, https://arxiv.org/abs/1801.06146
    """

    def __init__(
        self,
        inner_optimizer: Any,
        *,
        depths: Mapping[str, int],
        decay: float = 0.8,
        name: str | None = None,
    ):
        if not 0.0 < decay <= 1.0:
            raise ValueError(f"decay must lie in 0..1, above 0, got {decay}.")
        super().__init__(inner_optimizer, name=name)
        inner = self.inner_optimizer
        if type(inner).update_step is keras.optimizers.Optimizer.update_step:
            kind = type(inner).__name__
            raise ValueError(
                f"{kind} leaves its steps to other optimizers, where LayerwiseDecay cannot slow "
                f"them down. Wrap them the other way round: {kind}(LayerwiseDecay(optimizer))."
            )
        self.depths = dict(depths)
        self.decay = decay
        self._factors: list[float] = []
        self._slow_down()

    def build(self, variables):
        if self.built:
            return
        found = [self._depth(variable) for variable in variables]
        if not any(found):
            raise ValueError(
                "None of the weights that are trained is in depths. Pass variable_depths(encoder) "
                "of the encoder that this model holds."
            )
        self._factors = [self.decay**depth for depth in found]
        super().build(variables)

    def factor(self, variable: Any) -> float:
        """Returns the share of the learning rate that a weight learns at."""
        return self._factors[self.inner_optimizer._get_variable_index(variable)]

    def apply(self, grads, trainable_variables=None):
        variables = (
            self._trainable_variables if trainable_variables is None else trainable_variables
        )
        variables = list(variables)
        self.build(variables)
        self.inner_optimizer.apply(add_up_all(grads, variables), variables)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"depths": dict(self.depths), "decay": self.decay}

    def _depth(self, variable: Any) -> int:
        names = getattr(variable, "path", variable.name).split("/")
        paths = ("/".join(names[start:]) for start in range(len(names)))
        return next((self.depths[path] for path in paths if path in self.depths), 0)

    def _slow_down(self) -> None:
        """Has the inner optimizer take each weight's steps at the weight's own rate."""
        inner: Any = self.inner_optimizer
        take_step, shrink = inner.update_step, inner._apply_weight_decay
        current_rate = inner._get_current_learning_rate

        def slower_step(gradient, variable, learning_rate):
            take_step(gradient, variable, learning_rate * self.factor(variable))

        def slower_shrinking(variables):
            for factor in sorted({self.factor(variable) for variable in variables}):
                with slower_rate(factor):
                    shrink([each for each in variables if self.factor(each) == factor])

        @contextlib.contextmanager
        def slower_rate(factor: float) -> Iterator[None]:
            # Weight decay asks the optimizer itself for the rate.
            inner._get_current_learning_rate = lambda: current_rate() * factor
            try:
                yield
            finally:
                inner._get_current_learning_rate = current_rate

        inner.update_step, inner._apply_weight_decay = slower_step, slower_shrinking
