"""What each part of a local stack is: its certificates, files and command line."""

from __future__ import annotations

import getpass
import os
import shutil
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509

from broker_config.render import write as write_broker_files
from broker_config.settings import BrokerSettings
from cloud.pki.authority import Authority, Credentials
from cloud.stack.influx import influx_config
from cloud.stack.layout import HOST, Layout, MetricsKind, StackSettings
from cloud.stack.processes import Program

_RENEW_BEFORE = timedelta(days=30)
CLOUD_NAME = "fleet-cloud"
OPERATOR_NAME = "operator"


class NotInstalled(Exception):  # noqa: N818 - says what is the case
    """A program the stack needs is not on this machine."""


def api_url(settings: StackSettings) -> str:
    """Return where the stack's REST interface is."""
    return f"http://{HOST}:{settings.http_port}/api/v1"


def database_url(layout: Layout, settings: StackSettings) -> str:
    """Return the store's URL: what was asked for, or SQLite in the stack's directory."""
    return settings.database_url or layout.database_url


def metrics_url(layout: Layout, settings: StackSettings) -> str:
    """Return where samples are kept."""
    if settings.metrics is MetricsKind.INFLUX:
        return f"http://{HOST}:{settings.influx_port}"
    return database_url(layout, settings)


def device_name(number: int) -> str:
    """Return the name of a local device, counted from 1."""
    return f"gateway-{number:02d}"


def certificates(layout: Layout, now: datetime) -> Authority:
    """Return the stack's authority, with fresh certificates for broker, cloud and operator where needed."""
    authority = Authority.open(layout.pki, now=now)
    issue: dict[str, Callable[[], Credentials]] = {
        "broker": lambda: authority.issue_server(names=["localhost"], addresses=[IPv4Address(HOST)], now=now),
        "cloud": lambda: authority.issue_client(CLOUD_NAME, now=now),
        "operator": lambda: authority.issue_client(OPERATOR_NAME, now=now),
    }
    for name, make in issue.items():
        chain, key = layout.certificate(name)
        if not _is_good(chain, now):
            make().save(key=key, chain=chain)
    return authority


def broker(layout: Layout, settings: StackSettings, authority: Authority) -> Program:
    """Return Mosquitto, with its files written from broker_config."""
    chain, key = layout.certificate("broker")
    folder = layout.state("broker")
    configuration = write_broker_files(
        BrokerSettings(
            certificate=chain,
            key=key,
            devices_anchor=authority.device_anchor,
            services_anchor=authority.service_anchor,
            state=folder / "state",
            acl=folder / "acl",
            system_user=getpass.getuser(),
            devices_port=settings.device_mqtt_port,
            services_port=settings.mqtt_port,
            topic_root=settings.topic_root,
        )
    )
    return Program(
        "broker",
        [_binary("mosquitto"), "-c", str(configuration)],
        layout.log("broker"),
        folders=[folder / "state"],
    )


def influx(layout: Layout, settings: StackSettings) -> Program:
    """Return InfluxDB 1.x with its data in the stack's directory."""
    folder = layout.state("influx")
    folder.mkdir(mode=0o700, exist_ok=True)
    configuration = folder / "influxdb.conf"
    text = influx_config(folder, http_port=settings.influx_port, rpc_port=settings.influx_rpc_port)
    configuration.write_text(text, "utf-8")
    return Program("influxdb", [_binary("influxd"), "-config", str(configuration)], layout.log("influxdb"))


def cloud(layout: Layout, settings: StackSettings) -> Program:
    """Return the cloud: API, consumers and ingest in one process."""
    chain, key = layout.certificate("cloud")
    environment = {
        "DATA_DIR": layout.state("cloud"),
        "PKI_DIR": layout.pki,
        "DATABASE_URL": database_url(layout, settings),
        "METRICS": settings.metrics,
        "METRICS_URL": metrics_url(layout, settings),
        "MQTT_HOST": HOST,
        "MQTT_PORT": settings.mqtt_port,
        "MQTT_CA": layout.pki / "root.pem",
        "MQTT_CERT": chain,
        "MQTT_KEY": key,
        "DEVICE_MQTT_HOST": HOST,
        "DEVICE_MQTT_PORT": settings.device_mqtt_port,
        "TOPIC_ROOT": settings.topic_root,
        "HTTP_HOST": HOST,
        "HTTP_PORT": settings.http_port,
    }
    return Program(
        "cloud",
        [sys.executable, "-m", "cloud", "serve"],
        layout.log("cloud"),
        {f"FLEETLINE_{name}": str(value) for name, value in environment.items()},
    )


def device(layout: Layout, settings: StackSettings, number: int) -> Program:
    """Return one agent, which enrols itself at its first start and later finds the broker where it is now."""
    name = device_name(number)
    layout.lead_device(
        number,
        {"mqtt_host": HOST, "mqtt_port": settings.device_mqtt_port, "topic_root": settings.topic_root},
    )
    arguments = [
        *(sys.executable, "-m", "device", "run"),
        *("--data-dir", str(layout.device(number))),
        *("--engine", str(settings.engine)),
        *("--enrol-url", api_url(settings)),
        *("--token-file", str(layout.token)),
        *("--name", name),
        *("--label", "site=local"),
    ]
    return Program(name, arguments, layout.log(name))


def _binary(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin")
    if path is None:
        raise NotInstalled(f"{name} is not installed; run deploy/setup.sh")
    return path


def _is_good(chain: Path, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    except FileNotFoundError:
        return False
    return certificate.not_valid_after_utc - now > _RENEW_BEFORE
