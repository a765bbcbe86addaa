"""Which of many comparisons may be called findings: e-BH, for e-values that depend on each other in any way.

Wang and Ramdas 2022, "False discovery rate control with e-values", Journal of the Royal Statistical Society B 84, definition 1.
"""

import math
from collections.abc import Sequence


def discovered(log_e_values: Sequence[float], rate: float) -> tuple[bool, ...]:
    """For each e-value, given by its logarithm, whether it is a finding: of all findings at most `rate` are false, on average."""
    count = len(log_e_values)
    ranked = sorted(range(count), key=lambda index: -log_e_values[index])
    most = 0
    for rank, index in enumerate(ranked, 1):
        if log_e_values[index] >= math.log(count / (rate * rank)):
            most = rank
    chosen = set(ranked[:most])
    return tuple(index in chosen for index in range(count))
