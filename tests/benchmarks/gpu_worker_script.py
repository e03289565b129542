"""A worker for gpu_check_test.py: sections that do well or badly, without TensorFlow."""

import json
import os
import sys
import time

from benchmarks.gpu import table


def rows(name):
    if name == "raises":
        raise ValueError("this section cannot")
    if name == "hangs":
        time.sleep(60)
    yield table.measured("case", "1 ms")
    if name == "dies":
        print("its last words", file=sys.stderr, flush=True)
        os._exit(7)


def tell(row):
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    for section in json.loads(sys.argv[1])["sections"]:
        table.run(section, lambda section=section: rows(section), tell)
