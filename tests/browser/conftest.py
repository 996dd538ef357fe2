"""JupyterLab on 127.0.0.1 and a headless Chromium, both started once and shared by all tests of
this folder.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import pytest

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
NO_NEWS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}
}
KERNEL_IS_IDLE = """() => {
    const widget = window.jupyterapp && window.jupyterapp.shell.currentWidget;
    return widget?.sessionContext?.session?.kernel?.status === 'idle';
}"""


def pytest_collection_modifyitems(items):
    """Every test of this folder is a browser test, and slow: `-m "not browser"` leaves them out."""
    here = Path(__file__).parent
    for item in items:
        if here in Path(item.path).parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.slow)


def chromium() -> str | None:
    """The browser's path: the variable CHROMIUM, or the first found by its usual names."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="package")
def browser():
    """A headless Chromium; the tests are skipped where there is none, or no playwright to drive
    it.
    """
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: uv sync"
    )
    if chromium() is None:
        pytest.skip(
            "no Chromium was found: install it (apt-get install chromium) or set CHROMIUM to its"
            " path"
        )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def lab(browser, tmp_path_factory):
    """(address, folder) of a running JupyterLab whose settings live in a temporary folder."""
    pytest.importorskip(
        "jupyterlab", reason='JupyterLab is not installed: pip install -e ".[notebooks]"'
    )
    home, root = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("lab")
    (home / "app").mkdir()
    (home / "app" / "overrides.json").write_text(json.dumps(NO_NEWS))
    port = free_port()
    folders = {
        f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")
    }
    environment = {
        **os.environ,
        **folders,
        "IPYTHONDIR": str(home / "ipython"),
        "OMP_NUM_THREADS": "1",
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
        "--ServerApp.port_retries=0",
        "--IdentityProvider.token=t",
        f"--ServerApp.root_dir={root}",
        f"--LabApp.app_settings_dir={home / 'app'}",
        "--LabApp.news_url=",
        "--LabApp.extension_manager=readonly",
        "--expose-app-in-browser",
    ]
    with open(home / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token=t", server, home / "log")
        yield f"http://127.0.0.1:{port}", root
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(address: str, server: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, f"JupyterLab ended: {log.read_text()[-2000:]}"
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer within {seconds} s: {log.read_text()[-2000:]}")


@pytest.fixture(scope="package")
def open_page(browser):
    """open_page(**options): a page that remembers the JavaScript errors and the hosts it asked."""
    pages = []

    def open_one(**options):
        page = browser.new_page(viewport={"width": 1100, "height": 1000}, **options)
        page.errors, page.hosts = [], set()
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.hosts.add(urlsplit(request.url).hostname))
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        page.close()


@pytest.fixture(scope="package")
def run_notebook(lab, open_page):
    """run_notebook(name, *sources): a notebook of these cells, opened in JupyterLab and run."""
    address, root = lab

    def run(name: str, *sources: str):
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), root / name
        )
        page = open_page()
        page.goto(f"{address}/doc/tree/{name}?token=t&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_function(KERNEL_IS_IDLE, timeout=60_000)
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")
        return page

    return run
