"""The batches of a run, of which each process reads the rows of its own replicas."""

from circle_tf.data import pipeline
from trainers.cli import commands
from trainers.input import augment

__all__ = ["batches"]


def batches(
    config,
    split,
    *,
    strategy,
    start_step,
    num_steps,
    ids_as_input=False,
    ids_as_target=True,
    **options,
):
    """What `fit` reads: the batches of some steps, the same under every strategy.

    The rows of a step's batch are split contiguously over workers and then over their replicas, in
    sizes that differ by 1 at most.

    Args:
        config: recipe; reads `batch`, `augment`, `seed`.
        split: trainers.datasets.Split.
        strategy: tf.distribute.Strategy.
        start_step: int, the first step.
        num_steps: int.
        ids_as_input: whether the model takes the ids as its second input.
        ids_as_target: whether a loss besides its layers takes them.
        **options: `nearest_classes` and `group_size`, as of `circle_tf.pk_dataset`.

    Returns:
        tf.data.Dataset, or what the strategy distributes, of (images, ids), with `ids_as_input` of
        ((images, ids), ids), and without `ids_as_target` of ((images, ids),).

    Raises:
        commands.ConfigError: batches smaller than the number of replicas.
    """
    size = config.batch.classes_per_batch * config.batch.examples_per_class

    def part(index, number):
        rows = pipeline.pk_dataset(
            split.examples,
            split.labels,
            seed=config.seed,
            start_step=start_step,
            num_steps=num_steps,
            decode=split.decode,
            augment=augment.augmenter(config.augment),
            part=(index, number),
            **config.batch,
            **options,
        )
        if not ids_as_input:
            return rows
        if not ids_as_target:
            return rows.map(lambda images, ids: ((images, ids),))
        return rows.map(lambda images, ids: ((images, ids), ids))

    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return part(0, 1)
    with commands.config_errors():
        sizes = [_length(size, (index, replicas)) for index in range(replicas)]

    def worker_part(context):
        index, number = context.input_pipeline_id, context.num_input_pipelines
        local = replicas // number
        own = sizes[index * local : (index + 1) * local]
        return _per_replica(part(index, number), own)

    return strategy.distribute_datasets_from_function(worker_part)


def _length(size, part):
    rows = pipeline.part_of_batch(size, part=part)
    return rows.stop - rows.start


def _per_replica(dataset, sizes):
    """One element per replica from each batch of a worker, in the order of the replicas."""
    if len(set(sizes)) == 1:
        return dataset.rebatch(sizes[0], drop_remainder=True)
    return dataset.rebatch(sizes)
