"""Maths on tensors: the float policy, ids, and masks of pairs."""
