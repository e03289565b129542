r"""Latency and throughput of `export.serve` beside the same model in a session of this process.

    python -m benchmarks.serving_benchmark --model=models/glyphs/1
    python -m benchmarks.serving_benchmark --model=models/glyphs/1 --requests=100000   # memory too

The first table calls one at a time, in turn: what the server adds to the session. The second is
open-loop: requests leave at random times (a Poisson process) whether or not the earlier ones have
been answered, and a latency counts from the moment a request was due. A client that waits for each
answer sends less to a slow server and so hides its queue.
"""

import contextlib
import threading
import time

import numpy as np
import tqdm
from absl import app, flags

from benchmarks import timing
from benchmarks.served import serving
from export import client
from export.saved_model import session

_MODEL = flags.DEFINE_string("model", None, "A published version's directory.", required=True)
_BATCHES = flags.DEFINE_multi_integer("batch", [1, 8, 64], "Images of a request.")
_ROUNDS = flags.DEFINE_integer("rounds", 100, "Calls of each, in turn.", lower_bound=1)
_LOADS = flags.DEFINE_multi_float("load", [0.3, 0.6], "Shares of the throughput of one caller.")
_SECONDS = flags.DEFINE_float("seconds", 10, "How long each load lasts.", lower_bound=0.1)
_REQUESTS = flags.DEFINE_integer("requests", 0, "Requests to watch the server's memory over.")
_SESSION, _GRPC, _REST = "session, this process", "gRPC", "REST"


def closed_loop(opened, clients, images):
    """Times of single calls `[rounds]` by way."""
    timers = {_SESSION: timing.stopwatch(lambda: opened.run({"images": images}))}
    for way, served in clients.items():
        timers[way] = timing.stopwatch(lambda served=served: served.predict({"images": images}))
    return timing.interleaved(timers, rounds=_ROUNDS.value, warm_up=5)


def open_loop(address, name, images, *, rate, seconds):
    """Latencies of requests that leave at random times.

    Args:
        address: the server's, for gRPC.
        name: of the model.
        images: `[B, H, W, C]` float32.
        rate: float, requests a second.
        seconds: float.

    Returns:
        `(latencies, failed, reached)`: `[N]` seconds from when each was due, how many were
        refused, and answers a second.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    random = np.random.default_rng(0)
    gaps = random.exponential(1 / rate, max(1, int(rate * seconds)))
    latencies, failed, left = [], [], threading.Semaphore(0)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(images))

    def done(future, due):
        latencies.append(time.perf_counter() - due)
        failed.extend([future.code()] if future.code() != grpc.StatusCode.OK else [])
        left.release()

    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        start = time.perf_counter()
        for due in start + np.cumsum(gaps):
            time.sleep(max(0, due - time.perf_counter()))
            future = stub.Predict.future(request, timeout=60)
            future.add_done_callback(lambda future, due=due: done(future, due))
        for _ in gaps:
            left.acquire()
        return np.array(latencies), len(failed), len(gaps) / (time.perf_counter() - start)


def resident_mib(process):
    """Memory of a process in MiB."""
    with open(f"/proc/{process}/status", encoding="ascii") as status:
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def watch_memory(process, served, images, *, requests, callers=4):
    """Prints the server's memory after each tenth of the requests."""
    rows, part = [["0", resident_mib(process)]], max(1, requests // 10 // callers)

    def call():
        for _ in range(part):
            served.predict({"images": images})

    for number in tqdm.trange(1, 11, unit=" tenths", disable=None):
        threads = [threading.Thread(target=call) for _ in range(callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows.append([f"{number * part * callers:,}", resident_mib(process)])
    timing.print_table(["requests", "server's memory, MiB"], rows)


def _print_closed(found):
    rows = []
    for batch, times in found.items():
        for way, seconds in times.items():
            percentiles = np.percentile(1e3 * seconds, [50, 95, 99]).tolist()
            rate = float(batch / np.median(seconds))
            rows.append([batch, way, *percentiles, rate, timing.ratio(seconds, times[_SESSION])])
    titles = ["batch", "way", "p50 ms", "p95 ms", "p99 ms", "images/s", "ratio to session"]
    timing.print_table(titles, rows)


def _print_open(address, name, images, found):
    rows = []
    for batch, times in found.items():
        for load in _LOADS.value:
            rate = float(load / np.median(times[_GRPC]))
            latencies, failed, reached = open_loop(
                address, name, images[:batch], rate=rate, seconds=_SECONDS.value
            )
            percentiles = np.percentile(1e3 * latencies, [50, 95, 99]).tolist()
            rows.append([batch, load, rate, reached, *percentiles, len(latencies), failed])
    titles = ["batch", "load", "requests/s", "reached", "p50 ms", "p95 ms", "p99 ms"]
    timing.print_table([*titles, "requests", "failed"], rows)


def main(_):
    """Prints the tables."""
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(session.SavedModelSession(_MODEL.value))
        process, name, by_grpc, by_rest = stack.enter_context(serving(_MODEL.value))
        clients = {
            way: stack.enter_context(client.connect(address, model=name, timeout=60))
            for way, address in ((_GRPC, by_grpc), (_REST, by_rest))
        }
        shape = clients[_GRPC].signatures()["serving_default"]["images"][1:]
        images = np.random.default_rng(0).integers(0, 256, (max(_BATCHES.value), *shape))
        images = images.astype(np.float32)
        found = {b: closed_loop(opened, clients, images[:b]) for b in _BATCHES.value}
        _print_closed(found)
        print()
        _print_open(by_grpc, name, images, found)
        if _REQUESTS.value:
            print()
            watch_memory(process, clients[_GRPC], images[:1], requests=_REQUESTS.value)


if __name__ == "__main__":
    app.run(main)
