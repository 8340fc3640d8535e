"""Tables for a terminal."""


def text_table(rows: list[list[str]], *, align_left: bool = False) -> str:
    """Lays out cells in columns; the first column is aligned left, numbers right by default.

    Example:
        >>> print(text_table([["", "hr"], ["chain", "0.5"]]))
                hr
        chain  0.5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    side = "<" if align_left else ">"
    lines = [
        "  ".join(f"{cell:{'<' if i == 0 else side}{widths[i]}}" for i, cell in enumerate(row))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
