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
    waiting, seen = [nodes[_node_name(output)] for output in outputs], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        # Inputs of a node within a function are found with the whole body; see below.
        waiting += [nodes[name] for name in map(_node_name, node.input) if name in nodes]
        for called in _called_functions(node):
            waiting += library[called].node_def if called in library else ()


def forbidden_nodes(graph_def, outputs):
    """What a served graph must not hold: training-only, Python and XLA-compiled operations.

    Args:
        graph_def: `GraphDef` with its function library.
        outputs: names of nodes or tensors of the main graph that are served.

    Returns:
        Sorted list of `"op (why)"`, empty if the graph is fit to be served.
    """
    found = set()
    for node in served_nodes(graph_def, outputs):
        reasons = [why for ops, why in _FORBIDDEN_OPS.items() if re.search(ops, node.op)]
        if node.op.startswith("FusedBatchNorm") and node.attr["is_training"].b:
            reasons.append("batch statistics")
        if node.attr["_XlaMustCompile"].b:
            reasons.append("XLA, which TF Serving disables")
        found |= {f"{node.op} ({why})" for why in reasons}
    return sorted(found)


def _node_name(tensor):
    return tensor.removeprefix("^").split(":")[0]


def _called_functions(node):
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            if function.name:
                yield function.name
