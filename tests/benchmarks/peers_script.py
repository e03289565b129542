"""A peer's script for peers_test.py: what those that need PyTorch do, without it."""

from benchmarks import peers


def fail(_):
    raise ValueError("this peer cannot")


def total(inputs, *, times=1):
    print("chatter of a library")
    return times * float(inputs["rows"].sum())


if __name__ == "__main__":
    peers.serve({"total": total, "fail": fail})
