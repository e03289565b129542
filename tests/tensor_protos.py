"""TensorProtos of all kinds, for property tests."""

from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2, types_pb2

_shapes = st.lists(st.integers(-1, 4), max_size=4)
_values = {
    "float_val": st.floats(width=32),
    "double_val": st.floats(),
    "int_val": st.integers(-(2**31), 2**31 - 1),
    "int64_val": st.integers(-(2**63), 2**63 - 1),
    "uint32_val": st.integers(0, 2**32 - 1),
    "uint64_val": st.integers(0, 2**64 - 1),
    "bool_val": st.booleans(),
    "half_val": st.integers(-(2**31), 2**31 - 1),
    "string_val": st.binary(max_size=5),
    "scomplex_val": st.floats(width=32),
    "dcomplex_val": st.floats(),
}


@st.composite
def protos(draw):
    """TensorProtos of which about half are tensors."""
    proto = tensor_pb2.TensorProto(dtype=draw(st.sampled_from(types_pb2.DataType.values())))
    for size in draw(_shapes):
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_shape.unknown_rank = draw(st.integers(0, 9)) == 0
    if draw(st.booleans()):
        proto.tensor_content = draw(st.binary(max_size=64))
    for field in draw(st.lists(st.sampled_from(sorted(_values)), max_size=3)):
        getattr(proto, field).extend(draw(st.lists(_values[field], max_size=6)))
    return proto
