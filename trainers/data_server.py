"""A process of tf.data service, which takes the input work off the trainers.

    python -m trainers.data_server --port=5050                           (the dispatcher)
    python -m trainers.data_server --dispatcher=host:5050 --host=NAME    (each worker; its own name)

Trainers use it with --config.data_service=host:5050. `trainers.launch --data_service_workers=2`
starts all of it on this machine.
"""

from absl import flags

from trainers import launch
from trainers.cli import commands, quiet

_PORT = flags.DEFINE_integer("port", 0, "Port to listen on; 0: any free one.")
_DISPATCHER = flags.DEFINE_string("dispatcher", "", "host:port; makes this process a worker.")
_HOST = flags.DEFINE_string("host", "localhost", "Name by which trainers reach this worker.")


def main(argv):
    """Serves until it is ended."""
    del argv
    tf = quiet.import_tensorflow()
    service = tf.data.experimental.service
    if not _DISPATCHER.value:
        config = service.DispatcherConfig(port=_PORT.value)
        server = service.DispatchServer(config)
        print(f"tf.data service: dispatcher at {server.target}", flush=True)
    else:
        port = _PORT.value or launch.free_ports(1)[0]
        config = service.WorkerConfig(
            dispatcher_address=_DISPATCHER.value,
            worker_address=f"{_HOST.value}:{port}",
            port=port,
        )
        server = service.WorkerServer(config)
        print(f"tf.data service: worker of {_DISPATCHER.value}", flush=True)
    server.join()


if __name__ == "__main__":
    commands.run(main)
