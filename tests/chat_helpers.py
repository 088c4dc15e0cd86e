"""A tiny model to talk to."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.chat.served_model import ServedModel
from components.download.sample.tiny_llama import write_tiny_llama


def tiny_model(folder: Path, card: str = "# A card", context_length: int = 1024) -> ServedModel:
    """The bundled model with random weights: it says nonsense, but always the same."""
    write_tiny_llama(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return ServedModel("pmc-llama-tiny/3", ("champion",), card, network, tokenizer, context_length)


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """Serve an application over real HTTP; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()
