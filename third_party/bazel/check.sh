#!/usr/bin/env bash
# Queries the Bazel targets and runs a representative test: check.sh PYTHON
# PYTHON is the interpreter that has the packages of requirements.lock.
set -euo pipefail

test_target=//:tests/circle_tf/losses/circle_test

fail() {
  echo "error: $1" >&2
  exit 1
}

install_bazel() {
  command -v bazel >/dev/null && return
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "no bazel on PATH. On Debian: sudo apt-get install bazel-bootstrap; \
elsewhere: https://bazel.build/install"
  fi
  echo "Installing bazel-bootstrap: a minute or two, once."
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq bazel-bootstrap; } \
    >"$log" 2>&1 || { cat "$log" >&2; fail "apt-get could not install bazel-bootstrap."; }
}

# Quiet when it goes well, all of it when it does not.
run_bazel() {
  bazel "$@" >"$log" 2>&1 || { cat "$log" >&2; fail "bazel $* failed."; }
}

[ $# = 1 ] && [ -x "$1" ] || fail "expected the path of a Python, as in: $0 .venv/bin/python"
bin=$(cd "$(dirname "$1")" && pwd)
cd "$(dirname "$0")/../.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install_bazel
export PATH="$bin:$PATH"
# The server would stay for hours and hold its memory.
trap 'bazel shutdown >/dev/null 2>&1; rm -f "$log"' EXIT

run_bazel query //...
echo "bazel query: $(grep -c '^//' "$log") targets"
run_bazel test --symlink_prefix=/ "$test_target"
echo "bazel test:" $(grep "^$test_target" "$log")
