"""Your own images, listed in a CSV or Parquet file: path, label, and perhaps split, camera, box.

The recipe of configs/folder.py. Without a column `split` (train, test, query, gallery) or `role`
(query, gallery) a fifth of the classes is kept for testing; with cameras the report is that of
re-identification. Columns of other names: --config.dataset.columns.label=species. What the table
may hold: docs/data.md.

Cost: as configs/folder.py.
Command: python -m trainers.train --config=configs/table.py --workdir=runs/mine \
    --config.dataset.path=photos.csv
"""

from configs import folder


def get_config():
    """Photographs in a table."""
    config = folder.get_config()
    config.dataset.name = "table"
    return config
