"""When a process that ended is started again. Pure: a number in, a number out."""

STEADY_S = 10.0  # a process that lived this long was no early death
LONGEST_DELAY_S = 30.0
FAILED_STREAK = 5  # early deaths in a row after which the state says `failed`; it is still tried again


def next_streak(streak: int, lived_s: float) -> int:
    """How many early deaths in a row there are after one more end, of a process that lived `lived_s` seconds."""
    return 1 if lived_s >= STEADY_S else streak + 1


def restart_delay(streak: int) -> float:
    """Seconds to wait before the next start: none at first, then doubling from a quarter second up to half a minute."""
    if streak <= 1:
        return 0.0
    return float(min(LONGEST_DELAY_S, 0.25 * 2.0 ** min(streak - 2, 16)))
