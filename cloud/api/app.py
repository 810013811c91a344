"""The REST application, wired."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from cloud import VERSION
from cloud.api import (
    commands,
    configuration,
    dead_letters,
    deployments,
    devices,
    enrolment,
    errors,
    events,
    health,
    keys,
    monitoring,
    openapi,
)
from cloud.api.attempts import Attempts
from cloud.api.callers import Callers
from cloud.api.door import Door
from cloud.services import Services
from schemas.desired import DeploymentConfig
from schemas.device import EnrolmentRequest

PREFIX = "/api/v1"
ROUTERS = (
    health.router,
    devices.router,
    commands.router,
    deployments.router,
    configuration.router,
    monitoring.router,
    events.router,
    dead_letters.router,
    enrolment.router,
    keys.router,
)
BODIES = (
    devices.DevicePatch,
    commands.CommandOrder,
    DeploymentConfig,
    configuration.ConfigUpdate,
    enrolment.TokenRequest,
    EnrolmentRequest,
    keys.KeyRequest,
)


class Api(FastAPI):
    """FastAPI with our own OpenAPI document: bodies and parameters are not read by the frame."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, made once."""
        if not self.openapi_schema:
            self.openapi_schema = openapi.document(self, title="Fleetline", version=VERSION, bodies=BODIES)
        return self.openapi_schema


def create_api(services: Services) -> Api:
    """Return the application; it starts nothing and closes nothing of *services*.

    There is no page that renders the OpenAPI document: it would load scripts from elsewhere.
    """
    app = describe()
    app.state.services = services
    app.state.attempts = Attempts()
    app.state.callers = Callers()
    return app


def describe() -> Api:
    """Return the application without the parts it needs to answer: enough for its OpenAPI document."""
    app = Api(openapi_url=f"{PREFIX}/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_middleware(Door)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router, prefix=PREFIX)
    return app
