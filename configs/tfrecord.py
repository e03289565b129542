"""Your own images as TFRecord shards, which `python -m trainers.data convert` writes.

The recipe of configs/folder.py, read from shards: faster than many small files, above all on
network disks.

Command: python -m trainers.data convert --path=images --output=shards
         python -m trainers.train --config=configs/tfrecord.py --workdir=runs/mine \
             --config.dataset.path=shards
"""

from configs import folder


def get_config():
    """Photographs in shards."""
    config = folder.get_config()
    config.dataset.name = "tfrecord"
    return config
