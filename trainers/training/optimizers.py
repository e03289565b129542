"""Optimizers from a recipe: Adam, AdamW or SGD with warm-up, cosine schedule and clipping."""

import keras

from trainers.cli import commands

__all__ = ["build", "schedule"]


def build(config, *, steps):
    """The optimizer of a run.

    Args:
        config: the `optimizer` section of a recipe.
        steps: int, length of the run in steps.

    Returns:
        keras.optimizers.Optimizer whose learning rate is `schedule(config, steps=steps)`.

    Raises:
        commands.ConfigError: an unknown name, numbers out of range.

    Example:
        >>> from configs import base
        >>> type(build(base.get_config().optimizer, steps=100)).__name__
        'Adam'
    """
    makers = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.Adam,  # Keras decouples weight decay in both.
        "sgd": lambda **common: keras.optimizers.SGD(
            momentum=config.momentum, nesterov=config.momentum > 0, **common
        ),
    }
    if config.name not in makers:
        raise commands.ConfigError(
            f"optimizer.name must be one of {', '.join(makers)}; found {config.name!r}."
        )
    if config.clipnorm < 0 or config.weight_decay < 0:
        raise commands.ConfigError("optimizer.clipnorm and optimizer.weight_decay must not be < 0.")
    averaging = {"use_ema": True, "ema_momentum": config.ema_momentum}
    optimizer = makers[config.name](
        learning_rate=schedule(config, steps=steps),
        **(averaging if config.ema_momentum else {}),
        weight_decay=config.weight_decay or None,
        global_clipnorm=config.clipnorm or None,
    )
    # Decaying scales and offsets of normalisation towards 0 regularises nothing.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def schedule(config, *, steps):
    """The learning rate as a function of the step.

    It rises from 0 to `learning_rate` within `warmup_steps`, then stays (`constant`) or falls
    along half a cosine to `final_learning_rate` at the last step (`cosine`). `steps`, which has no
    warm-up, divides it by 10 after 50, 70 and 90 % of the steps.

    Args:
        config: the `optimizer` section of a recipe.
        steps: int, length of the run in steps.

    Returns:
        keras.optimizers.schedules.LearningRateSchedule, or a float when it does not change.

    Raises:
        commands.ConfigError: an unknown schedule, numbers out of range.

    Example:
        >>> from configs import base
        >>> rate = schedule(base.get_config().optimizer, steps=100)
        >>> [round(float(rate(step)), 6) for step in (0, 50, 100)]
        [0.001, 0.0005, 0.0]
    """
    if not 0 <= config.warmup_steps < steps:
        raise commands.ConfigError(
            f"optimizer.warmup_steps must be from 0 to below the {steps} steps of the run; "
            f"found {config.warmup_steps}."
        )
    if not config.learning_rate > 0 or not 0 <= config.final_learning_rate <= config.learning_rate:
        raise commands.ConfigError(
            "optimizer.learning_rate must be above 0, and final_learning_rate between 0 and it; "
            f"found {config.learning_rate} and {config.final_learning_rate}."
        )
    if config.schedule not in ("cosine", "constant", "steps"):
        raise commands.ConfigError(
            f"optimizer.schedule must be cosine, constant or steps; found {config.schedule!r}."
        )
    if config.schedule == "steps":
        return _falling_in_steps(config, steps)
    constant = config.schedule == "constant"
    if constant and not config.warmup_steps:
        return config.learning_rate
    end = config.learning_rate if constant else config.final_learning_rate
    warming = config.warmup_steps > 0
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warming else config.learning_rate,
        warmup_target=config.learning_rate if warming else None,
        warmup_steps=config.warmup_steps,
        decay_steps=steps - config.warmup_steps,
        alpha=end / config.learning_rate,
    )


def _falling_in_steps(config, steps):
    if config.warmup_steps:
        raise commands.ConfigError("optimizer.schedule steps has no warm-up: set warmup_steps 0.")
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(share * steps) for share in (0.5, 0.7, 0.9)],
        [config.learning_rate / 10**power for power in range(4)],
    )
