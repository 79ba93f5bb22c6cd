from collections.abc import Sequence

from sourcewise.figures import Figure


def first_letters(outputs: Sequence[str], references: Sequence[str]) -> float:
    """Of a hundred outputs, how many begin with the first letter of their reference."""
    right = sum(a[:1] == b[:1] for a, b in zip(outputs, references, strict=True))
    return 100 * right / max(len(outputs), 1)


FIRST_LETTER = Figure(
    "first_letter_pct",
    "first letter right",
    "{:.1f} %",
    "higher",
    (0.0, 100.0),
    meaning="outputs that begin with the letter of their reference",
    measure=first_letters,
)
