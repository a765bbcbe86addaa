"""How long an answer's phases took here, for a gateway that asks."""

from penstock.core.engine_phases import EnginePhases
from penstock.engine.engine import Answer


def phases_of_answer(answer: Answer, now_ns: int) -> EnginePhases | None:
    """The phases of an answer that is over, and is about to be told at `now_ns`; None if the pipeline brought forth nothing of it.

    Of several choices it is the first that begins and the last that ends. Together the phases are the time since the request came.
    """
    begun = [one for one in answer.sequences if one.first_ns]
    if not begun:
        return None
    submitted = answer.submitted_ns
    began = max(submitted, min(one.began_ns for one in begun))
    first = max(began, min(one.first_ns for one in begun))
    last = max(first, *[one.last_ns for one in begun])
    return EnginePhases(
        submitted - begun[0].arrived_ns, began - submitted, first - began, last - first, max(0, now_ns - last)
    )
