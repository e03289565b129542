"""A training run from recipe to finished model, resumable at any step."""

import contextlib
import dataclasses
import functools
import platform
import warnings

import keras
import ml_collections
import numpy as np
import tensorflow as tf

from circle_tf.callbacks import DiagnosticsCallback
from circle_tf.data.sampler import PKSampler
from circle_tf.optimizers import averages
from circle_tf.utils.files import disk_errors, replacing
from trainers import datasets
from trainers.cli import commands
from trainers.datasets import inventory
from trainers.distributed import acceleration, agreement, preemption, runtime
from trainers.evaluation import metrics
from trainers.input import batches
from trainers.outputs import artifacts, best, run_data
from trainers.outputs import workdir as workdirs
from trainers.training import (
    callbacks,
    checkpoints,
    fine_tuning,
    finite,
    hard_classes,
    ranges,
    run_models,
)

__all__ = ["train"]

_DIAGNOSED = 64  # examples


def train(config, *, workdir, dataset=None, config_name="", callbacks=(), allow_changed_data=False):
    """Trains the recipe, or goes on where a run in `workdir` stopped, or ended if it is longer now.

    Args:
        config: recipe, an ml_collections.ConfigDict with the fields of configs/base.py.
        workdir: str, directory of the run's files.
        dataset: trainers.datasets.Dataset, as `trainers.datasets.from_arrays` makes one, to train
            on instead of what the recipe names; to go on, give the same.
        config_name: str, the recipe's name for the record.
        callbacks: Keras callbacks besides the run's own; an epoch's end reaches them once it is
            evaluated and logged, and before it is saved. With averaged weights the model then has
            the averages.
        allow_changed_data: bool, go on over other data than the run began with.

    Returns:
        trainers.outputs.workdir.Workdir of the finished run.

    Raises:
        commands.ConfigError: the recipe cannot be, `workdir` holds a run of another one or of other
            data, or the loss or the state became NaN or inf.
        trainers.datasets.DataError: the data cannot be used.
        OSError: the disk is full, or nothing may be written there.
        trainers.distributed.preemption.Preempted: stopped by SIGTERM or SIGINT, saved.
    """
    config = config if dataset is None else run_data.as_given(config, dataset)
    ranges.check(config)
    hard_classes.check(config)
    files = workdirs.Workdir(workdir)
    files.check(config)
    lengthened = files.is_begun and files.is_lengthened(config)
    if files.is_finished and not lengthened:
        print(f"{files.path} holds the finished run of this recipe: nothing to do.")
        return files
    config, choice = _as_chosen(config, files)
    strategy = runtime.set_up(config)
    dataset = dataset or run_data.load(files, config)
    print(dataset.report)
    steps = run_length(config, dataset)
    if lengthened:
        files.check_length(steps)
        grown = [n for n in ("gamma", "margin") if config.loss[f"{n}_start"] is not None]
        follow = ", ".join(["the learning rate", *grown]) + (" follow" if grown else " follows")
        print(f"From here on {follow} the schedule of {steps} steps.")
    with strategy.scope():
        models = run_models.build(
            config,
            image_shape=dataset.image_shape,
            num_classes=len(dataset.train.class_names),
            steps=steps,
        )
    exchange = agreement.Exchange(strategy, runtime.cluster_of(strategy))
    run = _Run(config, choice, dataset, dataset, models, files, steps, exchange, tuple(callbacks))
    with agreement.explain_losses(exchange), disk_errors(files.path), _alone(run):
        agreement.check_same_choice(exchange, choice)
        now = inventory.take(dataset)
        agreement.check_same_data(exchange, inventory.checksum(now))
        run_data.check(
            files,
            now,
            counts_classes=models.counts_classes or config.hard_classes.group_size > 1,
            allow_changes=allow_changed_data,
        )
        if run.is_chief:
            run_data.keep(files, now)
        if models.from_features is not None:
            inputs = fine_tuning.cached(
                config, dataset, models.backbone, files=files, write=run.is_chief
            )
            run = dataclasses.replace(run, inputs=inputs)
        _train(run, config_name=config_name)
        exchange.gather(0)  # A worker that ends before the others looks to them as one that died.
    return files


def _as_chosen(config, files):
    """The recipe with what its run, or else this machine, has chosen for `auto`; and the choice."""
    devices, begun = acceleration.devices_of(config), files.continued(config)
    choice, here = acceleration.choose(begun, devices), acceleration.choose(config, devices)
    found, usual = ((one.precision, one.deterministic) for one in (choice, here))
    if found != usual:
        print(
            "The run goes on as it began, with precision={} and deterministic={}".format(*found)
            + "; on this machine a new one would have {} and {}.".format(*usual)
        )
    return acceleration.chosen(begun, choice), choice


def _train(run, *, config_name):
    """Trains on every worker; draws and saves on the chief."""
    config, dataset, models, files = run.config, run.dataset, run.models, run.files
    if not run.is_chief:
        _fit(run)
        artifacts.class_weights_of(models.training)
        return
    files.claim(config)
    drawing = artifacts.BeforeAndAfter(
        models.validated,
        dataset,
        inputs=run.inputs.test,
        files=files,
        margin=models.final_margin,
        seed=config.seed,
    )
    _fit(run)
    weights = artifacts.class_weights_of(models.training)
    drawing.draw(models.validated, step=run.steps)
    artifacts.save_examples(
        files.held_out, dataset, examples=config.eval_examples, seed=config.seed
    )
    artifacts.save_class_weights(
        files.class_weights, weights, class_names=dataset.train.class_names
    )
    _finish(run, config_name)


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """What a run consists of; of several workers the chief alone writes files.

    `inputs` is the data as the model that trains takes it: the images, or their features.
    """

    config: ml_collections.ConfigDict
    choice: acceleration.Choice
    dataset: datasets.Dataset
    inputs: datasets.Dataset
    models: run_models.Models
    files: workdirs.Workdir
    steps: int
    exchange: agreement.Exchange
    callbacks: tuple

    @property
    def is_chief(self):
        return self.exchange.cluster.is_chief


@contextlib.contextmanager
def _alone(run):
    """The workdir is this run's: the chief locks it, and all workers stop where it cannot."""
    with contextlib.ExitStack() as stack:
        error = None
        if run.is_chief:
            try:
                stack.enter_context(run.files.locked())
                run.files.check(run.config)  # Another training may have come and gone meanwhile.
            except (commands.ConfigError, OSError) as refused:
                error = refused
        if run.exchange.gather(int(error is not None)).any():
            raise error or commands.ConfigError("The chief cannot have the workdir: see its error.")
        yield


def run_length(config, dataset):
    """Steps of the run.

    Args:
        config: recipe; reads `steps`, `epochs`, `batch`.
        dataset: trainers.datasets.Dataset.

    Returns:
        int; `epochs` passes over the training examples when set, else `steps`.

    Raises:
        commands.ConfigError: a length below 1, batches the data cannot fill, a metric that is none.
    """
    with commands.config_errors(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Small classes are told of when the batches are made.
        sampler = PKSampler(dataset.train.labels, seed=config.seed, **config.batch)
    if config.keep_best not in ("", *metrics.VALIDATED):
        raise commands.ConfigError(
            f"keep_best must be one of {', '.join(metrics.VALIDATED)}, or empty; found "
            f"{config.keep_best!r}."
        )
    steps = config.epochs * sampler.steps_per_epoch if config.epochs else config.steps
    if steps < 1:
        raise commands.ConfigError(f"steps must be 1 or more; found {steps}.")
    return steps


def _fit(run):
    """Trains from the newest checkpoint, or from the start, to the last step.

    Where weights are averaged the models end with the averages; the checkpoints have both.
    """
    config, models, steps = run.config, run.models, run.steps
    hard = hard_classes.HardClasses(
        config, run.inputs.train, model=models.validated, exchange=run.exchange
    )
    saved = checkpoints.Checkpoints(
        run.files.checkpoints,
        models.training,
        keep=config.keep_checkpoints,
        write=run.is_chief,
        others=hard.variables,
    )
    watch = preemption.Watch(run.exchange)
    step = saved.restore()
    if step > steps:
        raise commands.ConfigError(
            f"The run in {run.files.path} has done {step} steps; the command asks for {steps}. "
            "Ask for as many or more, or give another --workdir."
        )
    state = [*models.training.variables, *models.training.optimizer.variables]
    agreement.check_agreement(run.exchange, step=step, variables=state)
    advice = []
    diagnostics, reports = _diagnostics(run, tell=advice.append), _reports(run, step=step)
    _announce(run, step=step)
    unreadable = run.dataset.train.naming_unreadable()
    diverged = finite.explained(config, checkpoints=saved, advice=advice)
    exchange = [callbacks.Exchange()] if config.optimizer.ema_momentum else []
    with watch.installed(), unreadable, diverged:
        while step < steps:
            options = hard.options(step)
            last = min(hard.next_refresh(step), steps)
            span = _next_span(step, steps=last, epoch_steps=config.eval_every)
            places = {"step": step, "steps": steps}
            saver = callbacks.Checkpointer(
                saved,
                every=config.checkpoint_every,
                epoch_steps=config.eval_every,
                must_stop=watch.must_stop,
                **places,
            )
            models.training.fit(
                batches.batches(
                    config,
                    run.inputs.train,
                    strategy=models.training.distribute_strategy,
                    ids_as_input=len(models.training.inputs) > 1,
                    ids_as_target=models.training.loss is not None,
                    start_step=step,
                    num_steps=span.steps,
                    **options,
                ),
                initial_epoch=span.epoch,
                epochs=span.epoch + span.epochs,
                steps_per_epoch=span.steps // span.epochs,
                shuffle=False,  # The data set is in the order wanted.
                verbose=0,
                callbacks=[
                    *([] if models.tuning is None else [models.tuning]),
                    callbacks.Divergence(saved.check, **places),
                    *diagnostics,
                    *exchange,
                    *(report(**places) for report in reports),
                    *run.callbacks,
                    *exchange,
                    saver,
                ],
            )
            step += span.steps
    if exchange:
        averages.exchange(models.training.optimizer)


def _diagnostics(run, *, tell):
    """On the chief, where the loss is one that it knows, what finds out why a training diverges."""
    margin, gamma = run.models.margin, run.models.gamma
    if not run.is_chief or margin is None or gamma is None:
        return []
    train = run.inputs.train
    rows = metrics.choose_classes(train, examples=_DIAGNOSED, seed=run.config.seed)
    return [
        DiagnosticsCallback(
            train.images(rows),
            train.labels[rows],
            margin=margin,
            gamma=gamma,
            embed=metrics.Embedder(run.models.validated),
            tell=tell,
        )
    ]


def _reports(run, *, step):
    """Makers of the callbacks that evaluate and write, which the chief alone does."""
    if not run.is_chief:
        return [callbacks.Progress]
    log = workdirs.MetricsLog(run.files.metrics)
    log.truncate(step)
    evaluate = metrics.during_training(run.config, model=run.models.validated, dataset=run.inputs)
    record = functools.partial(callbacks.Recorder, log, run.files.tensorboard)
    reports = [lambda **places: evaluate, record, callbacks.Progress]
    if run.config.keep_best:
        kept = best.BestModel(
            run.files,
            metric=run.config.keep_best,
            examples=run.config.eval_examples,
            step=step,
        )
        reports.append(functools.partial(callbacks.BestKeeper, kept, run.models.embedding))
    return reports


@dataclasses.dataclass(frozen=True)
class _Span:
    """What one call of `fit` covers: whole epochs, or the rest of a broken one."""

    epoch: int
    epochs: int
    steps: int


def _next_span(step, *, steps, epoch_steps):
    epoch, done = divmod(step, epoch_steps)
    whole = (steps - step) // epoch_steps
    if done or not whole:
        return _Span(epoch, 1, min(epoch_steps - done, steps - step))
    return _Span(epoch, whole, whole * epoch_steps)


def _announce(run, *, step):
    config, embedding = run.config, run.models.embedding
    batch = config.batch.classes_per_batch * config.batch.examples_per_class
    print(
        f"{config.model.backbone}: {embedding.count_params():,} weights, images "
        f"{embedding.input_shape[1:]} to {embedding.output_shape[1]} numbers."
    )
    devices, xla = acceleration.devices_of(config), run.models.training.compiled_by_xla
    print(acceleration.describe(run.choice, devices, xla=xla))
    if run.models.tuning is not None:
        print(fine_tuning.describe(run.models.tuning))
    verb = f"Resuming after step {step}" if step else "Training"
    if config.optimizer.ema_momentum:
        print("Evaluated and kept are averages of the weights over updates (ema_momentum).")
    print(f"{verb}: {run.steps} steps of {batch} images, loss {config.loss.name}.", flush=True)


def _finish(run, config_name):
    """Saves the embedding model, and last of all the mark that the run is complete."""
    models, files = run.models, run.files
    with replacing(files.model) as partial:
        models.embedding.save(partial)
    records = workdirs.MetricsLog(files.metrics).records()
    workdirs.write_json(
        files.run,
        {
            "step": run.steps,
            "config_name": config_name,
            "image_shape": list(models.embedding.input_shape[1:]),
            "embedding_dim": models.embedding.output_shape[1],
            "metrics": records[-1] if records else {},
            "precision": run.choice.precision,
            "jit": models.training.compiled_by_xla,
            "deterministic": run.choice.deterministic,
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
            },
        },
    )
