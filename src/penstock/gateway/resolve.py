"""Step 4: from the model that was asked for to the pool that will answer."""

from penstock.access.limits import BYTES_PER_TOKEN
from penstock.core.errors import Forbidden, NotFound, Unavailable
from penstock.experiments.assignment import Assigner, unit_of
from penstock.gateway.beside import pair_up
from penstock.gateway.call import Call
from penstock.gateway.capture import begin
from penstock.gateway.choose import arm_leg, cascade_leg, chosen_leg
from penstock.gateway.index import Caller, Index, Leg, RouteEntry
from penstock.gateway.pins import pinned
from penstock.routing.targets import choose_target


def find_route(index: Index, caller: Caller, model: str) -> RouteEntry:
    """The route that `model` names, which the caller may use.

    Raises:
        NotFound: if there is none.
        Forbidden: if the caller may not use it.
        Unavailable: if what the Snapshot says of it makes no sense.
    """
    entry = index.routes.get(model)
    if entry is None:
        entry = index.private.get(model)
        if entry is not None and entry.route.tenant == caller.tenant.name and caller.may_call(model):
            return entry
        if model in index.lost_routes and caller.may_call(model):
            raise Unavailable(
                f"What is configured for the model {model!r} cannot be used; `penstock doctor` tells its operator why.",
                code="route_unusable",
            )
        raise NotFound(
            f"The model {model!r} does not exist. GET /v1/models lists those that do.",
            code="model_not_found",
            param="model",
        )
    if caller.models is not None and entry.route.name not in caller.models:
        raise Forbidden(f"This key may not use the model {model!r}.", code="model_not_allowed", param="model")
    return entry


def resolve(call: Call) -> None:
    """Chooses route, arm and pool, and authorises what is chosen.

    Raises:
        NotFound: if there is no such route.
        Forbidden: if the key may not use it.
        Unavailable: if the route or its policy cannot be used.
    """
    caller = call.caller
    if caller is None:
        raise Forbidden("Nobody is calling.")
    envelope = call.envelope
    gateway = call.gateway
    entry = find_route(call.index, caller, envelope.model)
    call.route = entry
    user = envelope.user or ""
    session = _session(call)
    if user:
        call.user = gateway.subject(user)
    if session:
        call.session = gateway.subject(session)
    leg = chosen_leg(call, entry) if entry.chooser is not None else None
    if leg is None and entry.assigner is not None:  # where a rule says so, the request takes no part in an experiment
        leg = _assigned(call, entry, entry.assigner, caller, user, session)
    if leg is None and entry.cascade is not None:
        leg = cascade_leg(call, entry.cascade)
    if leg is None:
        single = len(entry.legs) == 1
        leg = entry.legs[0] if single else entry.pools[choose_target(entry.route, gateway.draw()).pool]
    call.leg = leg
    call.pool = gateway.pools.get(leg.entry.pool.name)  # with the index, from one Snapshot
    call.digest = leg.entry.pool.digest
    rules = call.rules = leg.rules if leg.rules is not None else call.index.rules_for(caller.tenant.policy)
    if rules is not None:
        if rules.fault:
            raise Unavailable(
                f"The policy {rules.policy.name!r} cannot be used; `penstock doctor` tells its operator why.",
                code="policy_unusable",
            )
        if rules.captures:
            begin(call, rules)


def _assigned(call: Call, entry: RouteEntry, assigner: Assigner, caller: Caller, user: str, session: str) -> Leg | None:
    """The leg of the arm that the request's unit is in; None if the request takes no part in the experiment."""
    gateway, experiment, tenant = call.gateway, assigner.entry, caller.tenant.name
    unit = unit_of(experiment.unit, user=user, session=session, key=caller.key.id, request=call.id)
    gate = assigner.gate
    if gate is not None:
        why = gate.why_not(tenant, call.request.headers, call.envelope.metadata, unit)
        if why:
            gateway.meters.cell("penstock_experiment_left_out_total", experiment.name, why).value += 1
            call.context = f"@{why}"
            return None
    if assigner.contextual:
        call.context = assigner.context_of(tenant, -(-len(call.request.body) // BYTES_PER_TOKEN))
    assignment = assigner.assign(unit, call.at, call.context)
    if assigner.sticky:
        about = unit if assigner.sticky == "unit" else session
        if about and about != call.id:  # a request that names nobody does not come again
            assignment = pinned(gateway.pins, assigner, tenant, about, assignment)
    leg = entry.arms[assignment.arm.name]
    call.arm = leg.name
    call.propensity = assignment.propensity
    call.epoch = assignment.epoch
    call.unit = gateway.subject(unit)
    if assigner.paired:
        leg = pair_up(call, entry, assignment)
    return leg if leg.cascade is None else arm_leg(call, leg)


def _session(call: Call) -> str:
    header = call.request.headers.get(b"x-penstock-session")
    if header is not None:
        return header.decode("latin-1")[:512]
    metadata = call.envelope.metadata
    if metadata:
        value = metadata.get("session_id")
        if isinstance(value, str):
            return value[:512]
    return ""
