"""Shares and rates for people."""

__all__ = ["as_text"]


def as_text(share, spec):
    """A share of at most 1 as text, with as many more digits as keep it from looking like 1.

    Args:
        share: float.
        spec: str, digits and kind of a format, as ".0%" or ".3f".

    Returns:
        str.

    Example:
        >>> as_text(0.994, ".0%"), as_text(0.9996, ".0%"), as_text(1.0, ".0%")
        ('99%', '99.96%', '100%')
        >>> as_text(0.99983, ".3f")
        '0.9998'
    """
    digits, kind = int(spec[1:-1]), spec[-1]
    while share < 1 and f"{share:.{digits}{kind}}" == f"{1:.{digits}{kind}}":
        digits += 1
    return f"{share:.{digits}{kind}}"
