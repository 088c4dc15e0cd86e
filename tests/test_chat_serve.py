"""`python -m pipelines chat` in a process of its own, and its page in a browser."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.download.sample.tiny_llama import write_tiny_llama
from pipelines.cli import app

CARD = "---\nlicense: other\n---\n# Model card of <tiny>\n\nNot for patients."


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one model, in a folder whose name has a space."""
    home = tmp_path_factory.mktemp("a home")
    folder = home / "store" / "model"
    write_tiny_llama(folder)
    (folder / "README.md").write_text(CARD)
    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    client.create_registered_model("tiny")
    client.create_model_version("tiny", folder.as_uri())
    client.set_registered_model_alias("tiny", "champion", "1")
    return home


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "pipelines", "chat", "--model", "tiny", "--port", "0", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"tiny/1 answers on (http://[\d.:]+),", line):
            break
    else:
        pytest.fail(said)
    _wait_for(found[1])
    yield found[1]
    process.terminate()
    process.communicate(timeout=60)


def test_page_and_endpoint_answer(address: str) -> None:
    page = httpx.get(address, timeout=60).text
    assert "tiny/1" in page
    ask = {"messages": [{"role": "user", "content": "Scurvy?"}], "max_tokens": 4}
    answer = httpx.post(f"{address}/v1/chat/completions", json=ask, timeout=60).json()
    assert answer["model"] == "tiny/1"
    assert answer["usage"]["completion_tokens"] == 4


@pytest.mark.skipif(not (shutil.which("chromium") and shutil.which("chromedriver")), reason="needs Chromium")
def test_a_browser_shows_the_notice_the_card_and_an_answer_that_is_only_text(address: str) -> None:
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.binary_location = str(shutil.which("chromium"))
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(address)
        wait = WebDriverWait(driver, 60)
        box = wait.until(lambda d: d.find_element(By.CSS_SELECTOR, "textarea[placeholder='Ask a medical question']"))
        assert "not a medical device" in driver.find_element(By.CSS_SELECTOR, "[role=note]").text
        box.send_keys("Scurvy? <img src='/picture'>", Keys.ENTER)

        def said(role: str) -> str:
            found = driver.execute_script(
                "return [...document.querySelectorAll(arguments[0])].map(each => each.innerText).join('')",
                f"#chat [data-testid={role}]",
            )
            return str(found)

        wait.until(lambda _: len(said("bot")) > 20)
        assert "<img src='/picture'>" in said("user")
        assert not driver.find_elements(By.CSS_SELECTOR, "#chat img[src='/picture']")
        assert "Model card" in driver.page_source
    finally:
        driver.quit()


def test_what_cannot_be_served_is_said_in_one_sentence(home: Path, address: str) -> None:
    port = address.rpartition(":")[2]
    for arguments, message in [
        (["--model", "other", "--port", "0"], "No model 'other' is registered; there are tiny."),
        (["--model", "tiny", "--port", port], f"Cannot listen on 127.0.0.1:{port} (Address already in use)"),
        (["--model", "tiny", "--port", "0", "--device", "cuda"], "has no usable GPU"),
    ]:
        result = CliRunner().invoke(app, ["chat", *arguments, "--home", str(home)])
        assert result.exit_code == 1
        assert message in str(result.exception)
    (home / "store" / "model").rename(home / "store" / "gone")
    try:
        result = CliRunner().invoke(app, ["chat", "--model", "tiny", "--port", "0", "--home", str(home)])
        assert "There is nothing at file://" in str(result.exception)
    finally:
        (home / "store" / "gone").rename(home / "store" / "model")


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"{address} does not answer")
