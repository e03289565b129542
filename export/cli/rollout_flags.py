"""The flags of the commands that move labels."""

from absl import flags

from circle_tf.utils import command_lines

__all__ = ["command", "define", "define_servers", "followed"]

flags.disclaim_key_flags()  # They are the commands' that ask for them: --help shows those.


def define():
    """Defines which model and which models.config, and the servers to ask."""
    flags.DEFINE_string("base_path", None, "Directory of the model's versions.", required=True)
    flags.DEFINE_string(
        "models_config", None, "The models.config; default: the one beside --base_path."
    )
    define_servers()


def define_servers():
    """Defines the servers to ask, and how long."""
    flags.DEFINE_list(
        "server",
        [],
        "host:port,... of the gRPC of every server that follows the models.config: each is given "
        "its content, whole, and asked what became of it. None: nobody is asked.",
    )
    flags.DEFINE_float("timeout", 120, "Seconds that a server may take to load a version.", 0.001)


def command(module, options, *, server=None):
    """A command about the same model, as a shell takes it.

    Args:
        module: the command's, as "rollback".
        options: flag values.
        server: the servers it asks; None for the same.

    Returns:
        str.
    """
    words = [f"--base_path={options.base_path}"]
    if options.models_config:
        words.append(f"--models_config={options.models_config}")
    if server or options.server:
        words.append(f"--server={server or ','.join(options.server)}")
    return command_lines.python_module(f"export.{module}", *words)


def followed(options):
    """Whether servers follow what was changed, in a line for people.

    Args:
        options: flag values.

    Returns:
        str.
    """
    if options.server:
        return f"Asked, and in agreement: {', '.join(options.server)}."
    asks = command("labels", options, server="localhost:8500")
    return f"No server was asked whether it follows. To ask: {asks}"
