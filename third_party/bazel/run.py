"""Runs a module of this tree under Bazel, as `python -m` would: `run.py trainers.train --flag=1`.

Under `bazel run` paths are relative to where the user stands, not to a folder that Bazel removes.
"""

import os
import runpy
import sys


def main():
    """Runs the module that the first argument names, with the others as its arguments."""
    if len(sys.argv) < 2:
        sys.exit("error: no module named. Start commands with `bazel run //:train -- --flags`.")
    del sys.argv[0]
    os.chdir(os.environ.get("BUILD_WORKING_DIRECTORY", "."))
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
