"""Rows of the check of a GPU, and the table that they make: neither TensorFlow nor PyTorch.

A row is a dict that JSON can hold: `section`, `case`, `verdict`, `found` (text for people) and
`numbers` (by name, for programs).
"""

import json

__all__ = [
    "BAD",
    "COLUMNS",
    "as_json",
    "as_markdown",
    "as_text",
    "failed",
    "guarded",
    "judged",
    "line",
    "measured",
    "run",
    "skipped",
]

BAD = ("FAIL", "FAILED")  # A result that is wrong; something that did not come to a result.
COLUMNS = ("section", "case", "verdict", "found")


def measured(case, found, **numbers):
    """A row of what nobody judges.

    Args:
        case: str, what was measured.
        found: str.
        **numbers: float, int or None by name.

    Returns:
        dict.
    """
    return {"case": case, "verdict": "-", "found": found, "numbers": numbers}


def judged(case, errors, limits):
    """A row of errors held to their limits.

    Args:
        case: str, what was compared.
        errors: float by name.
        limits: float by the same names; None shows the error only. NaN is above any limit.

    Returns:
        dict.
    """
    good = all(limit is None or errors[name] <= limit for name, limit in limits.items())
    found = ", ".join(
        f"{name} off by {errors[name]:.1e}" + ("" if limit is None else f" (at most {limit:.0e})")
        for name, limit in limits.items()
    )
    numbers = {f"{name} off by": errors[name] for name in limits}
    numbers |= {f"{name} at most": limit for name, limit in limits.items()}
    return {"case": case, "verdict": "pass" if good else "FAIL", "found": found, "numbers": numbers}


def skipped(case, reason):
    """A row of what was left out."""
    return {"case": case, "verdict": "skipped", "found": reason, "numbers": {}}


def failed(case, reason):
    """A row of what ended in an error."""
    return {"case": case, "verdict": "FAILED", "found": _one_line(reason), "numbers": {}}


def guarded(case, function, *args, **options):
    """The row that a function makes, or that of the error which it ended in."""
    try:
        return function(*args, **options)
    except Exception as error:  # One case that fails says nothing of the others.
        return failed(case, f"{type(error).__name__}: {error}")


def run(section, rows, tell):
    """Hands on the rows of a section, and when it begins and ends, whatever becomes of it.

    Args:
        section: str.
        rows: function without arguments to an iterable of rows.
        tell: called with `{"begins": section}`, each row, and `{"ends": section}`.
    """
    tell({"begins": section})
    try:
        for row in rows():
            tell(row)
    except Exception as error:  # The other sections still run.
        tell(failed("section", f"{type(error).__name__}: {error}"))
    tell({"ends": section})


def line(row):
    """A row as the line that shows progress."""
    return f"{row['section']:<9} {row['verdict']:<7} {row['case']}: {row['found']}"


def as_text(rows):
    """Table for a terminal."""
    cells = [COLUMNS, *([row[name] for name in COLUMNS] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(COLUMNS) - 1)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]])
        for row in cells
    )


def as_markdown(rows):
    """Markdown table."""
    cells = [COLUMNS, ["---"] * len(COLUMNS), *([row[name] for name in COLUMNS] for row in rows)]
    rows_of_text = (" | ".join(cell.replace("|", r"\|") for cell in row) for row in cells)
    return "\n".join(f"| {line} |" for line in rows_of_text)


def as_json(rows):
    """JSON list of the rows."""
    return json.dumps(rows, indent=1)


def _one_line(text):
    text = " ".join(str(text).split()) or "no reason was given"
    # A cause stands at the end, below the files that it came through.
    return text if len(text) <= 300 else f"{text[:80]} … {text[-217:]}"
