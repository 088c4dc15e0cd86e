"""The server: page and endpoint in one process, for one person's machine."""

import ipaddress
import logging
import os
import socket

import gradio as gr
import uvicorn
from fastapi import FastAPI

from components.chat.api import create_api
from components.chat.generation import Generator
from components.chat.page import STYLE, create_page, theme
from components.chat.served_model import ServedModel, served_model
from components.common.errors import InputError

log = logging.getLogger(__name__)


def serve(tracking_uri: str, wanted: str, host: str, port: int, device: str = "auto") -> None:
    """Load a registered model and answer until it is stopped: the page at ``/``, the endpoint at ``/v1``.

    Args:
        tracking_uri: Address of MLflow.
        wanted: Such as ``name``, ``name/3``, ``name@alias``.
        host: Address to listen at.
        port: Where; 0 takes any that is free.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: There is no such version, or the address is taken.
        PipelineError: MLflow does not answer.
        StorageError: The weights cannot be read.
    """
    with _listener(host, port) as listener, served_model(tracking_uri, wanted, device) as model:
        address = f"http://{host}:{listener.getsockname()[1]}"
        if not _is_own_machine(host):
            log.warning("Anybody who reaches %s can use it: there is no login. See k8s/serving for a team.", address)
        log.info("%s answers on %s, and OpenAI's clients at %s/v1; Ctrl-C ends it.", model.name, address, address)
        config = uvicorn.Config(create_app(model), log_level="warning", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


def create_app(model: ServedModel) -> FastAPI:
    """Make the application with page and endpoint."""
    generator = Generator(model)
    api = create_api(model, generator)
    page = create_page(model, generator)
    return gr.mount_gradio_app(
        api, page, path="/", theme=theme(), css=STYLE, footer_links=[], ssr_mode=False, show_error=True
    )


def _listener(host: str, port: int) -> socket.socket:
    """Bound before the model is loaded, so that a taken port is told at once."""
    try:
        return socket.create_server((host, port))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"Cannot listen on {host}:{port} ({reason}); choose another with --port (make: CHAT_PORT)."
        ) from error


def _is_own_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
