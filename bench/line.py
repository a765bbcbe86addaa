"""What a feature's line is made of."""

import msgspec


class Line(msgspec.Struct, frozen=True):
    """`template` has no number of its own: each that is printed is one of `figures`, which were measured for it."""

    template: str
    figures: dict[str, float]

    def __str__(self) -> str:
        return self.template.format(**self.figures)
