"""A SavedModel in TensorFlow's C++ session, which is what TF Serving runs."""

import threading

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.util import deprecation

__all__ = ["SavedModelSession"]

_KEPT = 64  # Prepared calls; clients choose outputs, and so could ask for any number of them.


class SavedModelSession:
    """A SavedModel opened as TF Serving opens it: neither Keras nor eager TensorFlow take part.

    `tf.saved_model.load` rebuilds Python objects and so loads models that a server cannot; it
    proves little. Use as a context manager, or call `close`.

    Args:
        path: directory of the SavedModel.

    Attributes:
        path: as given.
        signatures: dict of name to `SignatureDef`.

    Raises:
        OSError: no SavedModel there.
        tf.errors.OpError: the session refuses it.
    """

    def __init__(self, path):
        self.path = path
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        # "Use tf.saved_model.load instead": it does not open a session.
        with self._session.graph.as_default(), deprecation.silence():
            meta_graph = tf.compat.v1.saved_model.loader.load(self._session, ["serve"], path)
        self.signatures = dict(meta_graph.signature_def)
        self._callables = {}
        self._lock = threading.Lock()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Frees the session."""
        self._callables.clear()
        self._session.close()

    def graph_def(self):
        """The graph with its library of functions.

        Returns:
            `GraphDef`.
        """
        return self._session.graph.as_graph_def()

    def run(self, inputs, *, signature="serving_default"):
        """Runs one signature.

        Args:
            inputs: dict of input name to array; passed on unchecked, so that a bad one gets the
                session's own answer.
            signature: name of the signature.

        Returns:
            dict of output name to array.

        Raises:
            KeyError: no such signature, or an input is missing.
            tf.errors.OpError: what the session answers; bad input is `InvalidArgumentError`.
        """
        definition = self.signatures[signature]
        feeds = {definition.inputs[name].name: inputs[name] for name in definition.inputs}
        names = sorted(definition.outputs)
        outputs = self.run_tensors(feeds, fetches=[definition.outputs[n].name for n in names])
        return dict(zip(names, outputs, strict=True))

    def run_tensors(self, feeds, *, fetches):
        """Runs the graph from and to named tensors; safe to call from several threads.

        Args:
            feeds: dict of tensor name to array, unchecked as in `run`.
            fetches: sequence of tensor names.

        Returns:
            list of arrays, one for each of `fetches`.

        Raises:
            tf.errors.OpError: what the session answers.
        """
        names = tuple(sorted(feeds))
        call = self._callable(names, tuple(fetches))
        try:
            return call(*(feeds[name] for name in names))
        except UnicodeDecodeError as error:
            # A message that quotes input which is not text, such as a broken tf.Example.
            message = error.object.decode("utf-8", "replace")
            raise tf.errors.InvalidArgumentError(None, None, message) from None

    def _callable(self, feeds, fetches):
        with self._lock:
            if (feeds, fetches) not in self._callables:
                if len(self._callables) >= _KEPT:
                    self._callables.pop(next(iter(self._callables)))
                self._callables[feeds, fetches] = self._make_callable(feeds, fetches)
            return self._callables[feeds, fetches]

    def _make_callable(self, feeds, fetches):
        # session.run would check shapes and dtypes in Python before the C++ session sees them.
        options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
        return self._session._make_callable_from_options(options)
