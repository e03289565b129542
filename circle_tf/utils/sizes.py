"""How much memory is worked on at a time, where more of it buys no more speed."""

__all__ = ["BLOCK_BYTES", "BUDGET_BYTES"]

BLOCK_BYTES = 2**25  # A block of rows: smaller ones slow the products down.
BUDGET_BYTES = 2**28  # A matrix of similarities that is held as a whole.
