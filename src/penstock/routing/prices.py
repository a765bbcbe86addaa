"""What a request costs, in whole nano-dollars, so that sums are exact."""

from penstock.core.exchange import Usage
from penstock.core.snapshot import Price


def cost_nanousd(price: Price, usage: Usage) -> int:
    """The cost of `usage` at `price` (US dollars for a million tokens: 1 dollar a million is 1,000 nano-dollars a token)."""
    return round((price.prompt * usage.prompt + price.completion * usage.completion) * 1000.0)
