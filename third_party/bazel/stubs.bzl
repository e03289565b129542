"""Stands in for the rules that Bazel 4 would download, with the rules it has built in."""

_NAMES = ["remote_coverage_tools", "rules_cc", "rules_java", "rules_python"]

def stub_repositories():
    """Adds the stubs, but only to the Bazel that needs them: Debian's, which states no version."""
    if native.bazel_version and not native.bazel_version.startswith("4."):
        return
    for name in _NAMES:
        native.local_repository(name = name, path = "third_party/bazel/" + name)
