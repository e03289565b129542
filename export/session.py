"""A SavedModel in TensorFlow's C++ session, which is what TF Serving runs."""

import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.util import deprecation

__all__ = ["SavedModelSession"]


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

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Frees the session."""
        self._session.close()

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
        if signature not in self._callables:
            self._callables[signature] = self._make_callable(definition)
        arguments = [inputs[name] for name in sorted(definition.inputs)]
        try:
            outputs = self._callables[signature](*arguments)
        except UnicodeDecodeError as error:
            # A message that quotes input which is not text, such as a broken tf.Example.
            message = error.object.decode("utf-8", "replace")
            raise tf.errors.InvalidArgumentError(None, None, message) from None
        return dict(zip(sorted(definition.outputs), outputs, strict=True))

    def _make_callable(self, definition):
        # session.run would check shapes and dtypes in Python before the C++ session sees them.
        options = config_pb2.CallableOptions()
        options.feed.extend(definition.inputs[name].name for name in sorted(definition.inputs))
        options.fetch.extend(definition.outputs[name].name for name in sorted(definition.outputs))
        return self._session._make_callable_from_options(options)
