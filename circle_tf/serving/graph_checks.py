"""What is in a graph that will be served, and what must not be."""

import re

__all__ = ["forbidden_nodes", "served_nodes"]

# Ops that have no place in a served graph, and why. TF Serving cannot run Python; an op that
# draws random numbers or writes a variable belongs to training.
_FORBIDDEN_OPS = {
    r"Random|^Rng|^Stateful(?!PartitionedCall)|TruncatedNormal|Multinomial": "random numbers",
    r"^Assign|^ResourceApply|^ResourceScatter": "variable update",
    r"PyFunc": "Python code",
}


def served_nodes(graph_def, outputs):
    """Yields each node that computes the outputs, function bodies included.

    Args:
        graph_def: `GraphDef` with its function library.
        outputs: names of nodes or tensors of the main graph.

    Yields:
        `NodeDef`.
    """
    nodes = {node.name: node for node in graph_def.node}
    library = {function.signature.name: function for function in graph_def.library.function}
    waiting, seen = [_node_name(output) for output in outputs], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        yield nodes[name]
        yield from _nodes_called_by(nodes[name], library, seen)
        waiting += map(_node_name, nodes[name].input)


def forbidden_nodes(graph_def, outputs, *, xla=False):
    """What a served graph must not hold: training-only, Python and XLA-compiled operations.

    Args:
        graph_def: `GraphDef` with its function library.
        outputs: names of nodes or tensors of the main graph that are served.
        xla: whether XLA is allowed, for servers that are told to enable it.

    Returns:
        Sorted list of `"op (why)"`, empty if the graph is fit to be served.
    """
    forbidden = set()
    for node in served_nodes(graph_def, outputs):
        reasons = [why for ops, why in _FORBIDDEN_OPS.items() if re.search(ops, node.op)]
        if node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b:
            reasons.append("batch statistics")
        if node.attr["_XlaMustCompile"].b and not xla:
            reasons.append("XLA, which TF Serving disables")
        forbidden |= {f"{node.op} ({why})" for why in reasons}
    return sorted(forbidden)


def _node_name(tensor):
    return tensor.removeprefix("^").split(":")[0]


def _nodes_called_by(node, library, seen):
    """The bodies of the functions that a node calls, and that these call."""
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            key = ("function", function.name)
            if function.name not in library or key in seen:
                continue
            seen.add(key)
            for inner in library[function.name].node_def:
                yield inner
                yield from _nodes_called_by(inner, library, seen)
