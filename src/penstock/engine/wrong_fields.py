"""What is wrong with a body, said as OpenAI's API says it."""

import msgspec

from penstock.core.errors import BadRequest


def wrong_field(error: msgspec.ValidationError) -> BadRequest:
    """What a decoder said of a body, as the refusal that names the field: one that is not known, one that is missing, or a wrong value."""
    text = str(error)
    if "unknown field" in text:
        name = text.split("`")[1]
        return BadRequest(f"Unrecognized request argument supplied: {name}", code="unknown_parameter", param=name)
    if "missing required field" in text:
        name = text.split("`")[1]
        return BadRequest(f"{name} is missing.", code="missing_required_parameter", param=name)
    what, _, where = text.partition(" - at `$.")
    name = where.rstrip("`")
    return BadRequest(f"{name or 'The body'} is wrong: {what[:1].lower()}{what[1:]}.", param=name or None)
