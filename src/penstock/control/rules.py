"""Who may call each endpoint, read off the application itself: for its OpenAPI, for the page of the reference, for the tests."""

from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts

from penstock.access.principals import ROLES, Permission, Scope
from penstock.control.api.monitoring import check_monitoring
from penstock.control.auth import Needs, check_service

Shown = Literal["", "service", "monitoring"]
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call one endpoint. Without permissions, scope and token (`shows`) anybody may."""

    method: str
    path: str
    permissions: tuple[Permission, ...] = ()
    scope: Scope | None = None
    shows: Shown = ""

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that let a key in; none where every key may."""
        if not self.permissions:
            return ()
        return tuple(role for role, given in ROLES.items() if given.intersection(self.permissions))


def rules_of(app: FastAPI) -> tuple[Rule, ...]:
    """A rule for each endpoint that the OpenAPI shows, by path and method."""
    found = [
        _rule(route, method)
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, APIRoute) and route.include_in_schema
        for method in _METHODS
        if method in (route.methods or ())
    ]
    return tuple(sorted(found, key=lambda rule: (rule.path, _METHODS.index(rule.method))))


def _rule(route: RouteContext, method: str) -> Rule:
    permissions: list[Permission] = []
    scope: Scope | None = None
    shows: Shown = ""
    for call in _calls(route.dependant) if route.dependant is not None else ():
        if isinstance(call, Needs):
            permissions += call.permissions
            scope = "installation" if scope == "installation" else call.scope
        elif call is check_service:
            shows = "service"
        elif call is check_monitoring:
            shows = "monitoring"
    path = route.path_format or ""
    return Rule(method=method, path=path, permissions=tuple(permissions), scope=scope, shows=shows)


def _calls(dependant: Dependant) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one.call
        yield from _calls(one)


class Application(FastAPI):
    """FastAPI whose OpenAPI says of each call who may make it, in `x-penstock-access`."""

    def openapi(self) -> dict[str, Any]:
        """See `FastAPI.openapi`."""
        if self.openapi_schema is None:
            schema = super().openapi()
            for rule in rules_of(self):
                told = {"permissions": list(rule.permissions), "scope": rule.scope, "token": rule.shows or None}
                schema["paths"][rule.path][rule.method.lower()]["x-penstock-access"] = told
        return super().openapi()
