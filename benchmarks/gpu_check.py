"""One table of what circle-tf does on this GPU: right, how fast, and in how much memory.

    python -m benchmarks.gpu_check
    python -m benchmarks.gpu_check --output=gpu.md --output=gpu.json
    python -m benchmarks.gpu_check --sections=values --sections=pairs --minutes=2

Sections: `device`; `values`, losses and heads against float64; `servable`, saved here and loaded on
the CPU; `pairs` and `classes`, times and memory; `replicas`, two on one GPU; `training`, ResNet50.
PyTorch stands beside them where `make bench-peers` (or CIRCLE_TF_PEERS, a Python) has it. Each
section runs in processes of its own, within the time given. The status is 1 if anything failed.
Without a GPU the same runs at small sizes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from absl import app, flags

from benchmarks.gpu import table

SHARES = {  # Of the time; what a section leaves is for those after it.
    "device": 1,
    "values": 5,
    "servable": 1,
    "pairs": 2,
    "classes": 2,
    "replicas": 1,
    "training": 5,
}
SECTIONS = tuple(SHARES)
_WRITERS = {".md": table.as_markdown, ".json": table.as_json, ".txt": table.as_text}
_ALONE = ("replicas",)  # Its devices are cut in two before TensorFlow starts.


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_float("minutes", 5.0, "Time for all sections.", lower_bound=0.0)
    flags.DEFINE_bool("small", None, "Small sizes; by default where there is no GPU.")
    flags.DEFINE_multi_enum("sections", SECTIONS, SECTIONS, "What to run.")
    flags.DEFINE_multi_string("output", [], "Files to write the table to: .md, .json, .txt.")


def run(groups, *, seconds, small, tell, module="benchmarks.gpu.worker"):
    """Runs groups of sections, each group in a process.

    Args:
        groups: lists of names of sections.
        seconds: float, for all of them.
        small: whether sizes are small; None where there is no GPU.
        tell: called with each row, as it comes.
        module: what `python -m` runs for a group; see `benchmarks/gpu/worker.py`.

    Returns:
        list of rows.
    """
    ends, rows = time.monotonic() + seconds, []

    def add(section, row):
        rows.append({"section": section, **row})
        tell(rows[-1])

    for number, group in enumerate(groups):
        left = list(group)
        while left:  # Those after one that took its process with it have another.
            later = [name for others in groups[number + 1 :] for name in others]
            share = _share(left) / (_share(left) + _share(later))
            seconds = share * (ends - time.monotonic())
            if seconds <= 0:
                for section in left:
                    add(section, table.skipped("section", "time is up; give more --minutes"))
                break
            asked = {"sections": left, "small": small, "seconds": seconds}
            left = _run_group([sys.executable, "-m", module, json.dumps(asked)], asked, add)
    return rows


def _share(sections):
    return sum(SHARES.get(section, 1) for section in sections)


def _run_group(command, asked, add):
    """Runs one process and hands on its rows; returns the sections that it did not come to."""
    left, running = list(asked["sections"]), asked["sections"][0]
    with tempfile.TemporaryFile("w+", errors="replace") as noise:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=noise, text=True, start_new_session=True
        )
        late = threading.Event()
        timer = threading.Timer(asked["seconds"], lambda: (late.set(), _stop(process)))
        timer.start()
        try:
            for line in process.stdout:
                row = json.loads(line)
                if "begins" in row:
                    running = row["begins"]
                elif "ends" in row:
                    left.remove(row["ends"])
                else:
                    add(running, row)
        finally:
            timer.cancel()
            if left or process.poll() is None:
                _stop(process)
            process.stdout.close()
            status = process.wait()
        if not left:
            return []
        if late.is_set():
            add(running, table.skipped("the rest", "time was up; give more --minutes"))
        else:
            noise.seek(0)
            add(running, table.failed("section", _last_words(status, noise.read())))
    return left[left.index(running) + 1 :]


def _stop(process):
    """Ends a process with those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _last_words(status, noise):
    lines = [line.strip() for line in noise.splitlines() if line.strip()]
    return f"the process ended with status {status}: {lines[-1] if lines else 'without a word'}"


def groups_of(sections, *, apart):
    """Lists of sections that share a process.

    Args:
        sections: names, in the order of `SECTIONS` or any other.
        apart: whether each is to find the memory of the GPU free.

    Returns:
        list of lists.
    """
    if apart:
        return [[section] for section in sections]
    together = [section for section in sections if section not in _ALONE]
    alone = [[section] for section in sections if section in _ALONE]
    return [*([together] if together else []), *alone]


def main(_):
    """Prints the table."""
    options = flags.FLAGS
    for path in options.output:
        if os.path.splitext(path)[1] not in _WRITERS:
            raise app.UsageError(f"--output must end in {', '.join(_WRITERS)}; found {path!r}.")
    has_gpu = shutil.which("nvidia-smi") is not None
    sections = [section for section in SECTIONS if section in options.sections]
    rows = run(
        groups_of(sections, apart=has_gpu),
        seconds=60 * options.minutes,
        small=options.small,
        tell=lambda row: print(table.line(row), file=sys.stderr, flush=True),
    )
    print(table.as_text(rows))
    for path in options.output:
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(_WRITERS[os.path.splitext(path)[1]](rows) + "\n")
    bad = [row for row in rows if row["verdict"] in table.BAD]
    if bad:
        print(f"{len(bad)} of {len(rows)} rows failed.", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    define_flags()
    app.run(main)
