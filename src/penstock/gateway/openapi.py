"""The gateway's own OpenAPI document: what it checks; every other OpenAI field passes through."""

from functools import cache
from typing import Any

import msgspec

from penstock import __version__
from penstock.gateway.models import Model, ModelList
from penstock.gateway.observe import Accepted, Event, Feedback, Preference, Report
from penstock.wire.envelope import ChatEnvelope, CompletionEnvelope, EmbeddingsEnvelope, Envelope
from penstock.wire.openai import ErrorBody
from penstock.wire.responses import ResponsesEnvelope

_POSTS: tuple[tuple[str, type[msgspec.Struct], str], ...] = (
    ("/v1/chat/completions", ChatEnvelope, "Answers a conversation, whole or as a stream of server-sent events."),
    ("/v1/completions", CompletionEnvelope, "Continues a text, whole or as a stream of server-sent events."),
    ("/v1/embeddings", EmbeddingsEnvelope, "Turns texts into vectors."),
    ("/v1/responses", ResponsesEnvelope, "Answers as the Responses API does, whole or as a stream of typed events."),
    ("/v1/feedback", Feedback, "Tells how good an answer was."),
    ("/v1/events", Event, "Tells what happened after an answer, or to a user."),
    ("/v1/reports", Report, "Tells what was wrong with an answer."),
    ("/v1/preferences", Preference, "Tells which of two interleaved answers was better."),
)
_GETS: tuple[tuple[str, type[msgspec.Struct] | None, str], ...] = (
    ("/v1/models", ModelList, "The models that the key may use."),
    ("/v1/models/{model}", Model, "One of them."),
    ("/healthz", None, "Whether the process lives."),
    ("/readyz", None, "Whether requests can be answered."),
    ("/metrics", None, "Prometheus metrics of all workers of the host."),
    ("/openapi.json", None, "This document."),
)


@cache
def document() -> bytes:
    """The document, as JSON."""
    kinds: list[type[msgspec.Struct]] = [kind for _, kind, _ in _POSTS]
    kinds += [kind for _, kind, _ in _GETS if kind is not None]
    schemas, components = msgspec.json.schema_components(
        [*kinds, Accepted, ErrorBody], ref_template="#/components/schemas/{name}"
    )
    named = dict(zip([*kinds, Accepted, ErrorBody], schemas, strict=True))
    refused = {"description": "An error.", "content": {"application/json": {"schema": named[ErrorBody]}}}
    paths: dict[str, Any] = {}
    for path, kind, text in _POSTS:
        asks = issubclass(kind, Envelope | ResponsesEnvelope)
        answer = {"type": "object"} if asks else named[Accepted]
        content: dict[str, Any] = {"application/json": {"schema": answer}}
        if asks and kind is not EmbeddingsEnvelope:
            content["text/event-stream"] = {"schema": {"type": "string"}}
        paths[path] = {
            "post": {
                "summary": text,
                "security": [{"key": []}],
                "requestBody": {"required": True, "content": {"application/json": {"schema": named[kind]}}},
                "responses": {"200": {"description": "Done.", "content": content}, "default": refused},
            }
        }
    for path, found, text in _GETS:
        entry: dict[str, Any] = {"summary": text, "responses": {"200": {"description": "Done."}, "default": refused}}
        if found is not None:
            entry["responses"]["200"]["content"] = {"application/json": {"schema": named[found]}}
            entry["security"] = [{"key": []}]
        if "{model}" in path:
            entry["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
        paths[path] = {"get": entry}
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Penstock gateway", "version": __version__},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }
    )
