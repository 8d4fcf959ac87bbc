"""The dashboard in a headless Chromium that is driven over its DevTools protocol, before the real service."""

import asyncio
import base64
import contextlib
import gzip
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import pytest
from mock_server import MockServer

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("websockets")

import uvicorn
from websockets.sync.client import connect

from hexopt.cluster import parse_cluster
from hexopt.policies import make_policy
from hexopt.service.app import Application
from hexopt.service.fleet import Server
from hexopt.service.settings import ServiceSettings

pytestmark = pytest.mark.xdist_group("servers")

KINDS = ("schema_linking", "generate_candidate", "revise", "unit_tester", "evaluate")
HOSTILE = "<img src=/missing onerror=\"document.title='broken into'\"><script>document.title='broken into'</script>"
PATIENCE = 120.0


class Site:
    """An ASGI application on a port of its own, in a thread of its own."""

    def __init__(self, application):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(application, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self.socket])), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def close(self):
        self.server.should_exit = True
        self.thread.join(20.0)


def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20.0) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def until(what, told="it"):
    """What ``what()`` gives once that is true."""
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < end, f"{told} did not come to be in {PATIENCE:g} s"
        time.sleep(0.1)
    return found


class Fleet:
    """The service before two slow model servers."""

    def __init__(self, key=""):
        self.mocks = [MockServer(), MockServer()]
        self.sites = [Site(mock) for mock in self.mocks]
        rows = [
            {"name": f"gpu-{k}", "gpu": gpu, "max_num_seqs": 4, "url": site.url}
            for k, (gpu, site) in enumerate(zip(("a100", "l40s"), self.sites, strict=True))
        ]
        cluster = parse_cluster({"llm": "llama-3.1-8b", "instance": rows}, "test")
        servers = [Server(instance, instance.url) for instance in cluster.instances]
        settings = ServiceSettings(api_key=key, store="", workflow_idle=3600.0)
        self.application = Application(settings, servers, make_policy("rolling-horizon"))
        self.site = Site(self.application)
        self.url = self.site.url
        self.key = key
        until(lambda: self.site.server.started, "the service")
        until(lambda: get(f"{self.url}/readyz")[0] == 200, "readiness")

    def call(self, workflow, kind, tokens=12):
        headers = {"content-type": "application/json", "x-hexopt-workflow": workflow, "x-hexopt-kind": kind}
        headers |= {"authorization": f"Bearer {self.key}"} if self.key else {}
        body = {"model": "m", "stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": "How?"}]}
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.read()

    @contextlib.contextmanager
    def under_load(self, delay=3.0):
        """Text-to-SQL workflows run one call after the other until the block ends."""
        for mock in self.mocks:
            mock.delay = delay
        ended = threading.Event()

        def flow(k):
            for kind in itertools.cycle(KINDS):
                if ended.is_set():
                    return
                self.call(f"flow-{k}", kind)

        with ThreadPoolExecutor(5) as pool:
            flows = [pool.submit(flow, k) for k in range(5)]
            try:
                yield
            finally:
                ended.set()
                for mock in self.mocks:
                    mock.delay = 0.0
                for one in flows:
                    one.result(PATIENCE)

    def close(self):
        for site in (self.site, *self.sites):
            site.close()


class Browser:
    """One tab; what it complains of and asks for is kept."""

    def __init__(self, program, profile):
        self.process = subprocess.Popen(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}",
                "--remote-debugging-port=0", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        told = profile / "DevToolsActivePort"
        until(lambda: told.exists() and told.read_text().count("\n"), "the browser")
        port = told.read_text().split()[0]
        pages = until(
            lambda: [t for t in json.loads(get(f"http://127.0.0.1:{port}/json/list")[2]) if t["type"] == "page"]
        )
        self.wire = connect(pages[0]["webSocketDebuggerUrl"], max_size=None)
        self.numbers = itertools.count(1)
        self.complaints = []
        self.requests = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        number = next(self.numbers)
        self.wire.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.wire.recv(timeout=PATIENCE))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message.get("method"), message.get("params"))

    def _note(self, method, told):
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(told["exceptionDetails"])
        elif method == "Log.entryAdded" or (method == "Runtime.consoleAPICalled" and told["type"] != "log"):
            self.complaints.append(told)

    def open(self, url, width=1440, height=1000, scheme="light"):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.requests.clear()
        self.ask("Page.navigate", url=url)

    def run(self, script):
        """Value of an expression in the page."""
        done = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, script):
        def holds():
            # While a page comes, what the script looks for is not there.
            done = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
            return None if "exceptionDetails" in done else done["result"].get("value")

        return until(holds, script)

    def wait_for_charts(self):
        """Charts are drawn once they are near the part of the page that can be seen."""
        for chart in ("gantt", "attainment", "latency"):
            self.wait(f"document.getElementById('{chart}').scrollIntoView() ?? true")
            self.wait(f"document.querySelector('#{chart} .main-svg') !== null")

    def press(self, key, code=None):
        number = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowUp": 38, "Home": 36}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number, **text)
            text = {}

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def shot(self, path, whole=False):
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def close(self):
        with contextlib.suppress(Exception):
            self.ask("Browser.close")
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def fleet():
    found = Fleet()
    yield found
    found.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing = pytest.fail if "HEXOPT_REQUIRE_CHROMIUM" in os.environ else pytest.skip
        missing("no Chromium on PATH (Debian package chromium)")
    found = Browser(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


LIVE = "document.getElementById('connection')?.dataset.state === 'live'"


def test_files_are_served_whole_packed_and_known_again(fleet):
    status, headers, page = get(f"{fleet.url}/")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    names = re.findall(rb'(?:src|href)="/dashboard/([^"]+)"', page)
    assert {b"dashboard.css", b"plotly.min.js", b"main.js"} <= set(names)
    for name in map(bytes.decode, names):
        status, headers, content = get(f"{fleet.url}/dashboard/{name}")
        assert status == 200 and "content-encoding" not in headers
        assert headers["content-type"].startswith("text/css" if name.endswith("css") else "text/javascript")
        _, packed_headers, packed = get(f"{fleet.url}/dashboard/{name}", **{"accept-encoding": "gzip"})
        assert packed_headers["content-encoding"] == "gzip" and gzip.decompress(packed) == content
        assert get(f"{fleet.url}/dashboard/{name}", **{"if-none-match": headers["etag"]})[0] == 304
    for name in ("missing.js", "..%2f__init__.py", "%2e%2e/__init__.py", "__init__.py"):
        assert get(f"{fleet.url}/dashboard/{name}")[0] == 404


def test_policy_names_no_other_host_and_no_script_in_the_page(fleet):
    _, headers, page = get(f"{fleet.url}/")
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'" and "http" not in headers["content-security-policy"]
    assert b"<style" not in page and b" style=" not in page and not re.search(rb"<script[^>]*>[^<]", page)


def test_no_script_makes_markup_of_text():
    for path in (resources.files("hexopt.service.dashboard") / "assets").iterdir():
        if path.name.endswith(".js"):
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text())


@pytest.mark.slow
def test_shows_what_runs_and_complains_of_nothing(fleet, browser):
    with fleet.under_load():
        browser.open(fleet.url)
        browser.wait(LIVE)
        assert browser.run("[...document.querySelectorAll('#instances tbody .state')].map(e => e.textContent)") == [
            "up",
            "up",
        ]
        browser.wait("document.querySelectorAll('#workflows tbody tr').length >= 5")
        shown = browser.run("[...document.querySelectorAll('#workflows .pick')].map(e => e.textContent)")
        assert {f"flow-{k}" for k in range(5)} <= set(shown)
        browser.wait("/spare|late/.test(document.querySelector('#workflows .mood').textContent)")
        browser.wait(
            "[...document.querySelectorAll('#instances tbody tr')].some(r => /^[1-4] /.test(r.cells[2].textContent))"
        )
        browser.wait("document.querySelectorAll('#gantt .point path').length > 8")
        browser.wait("document.querySelectorAll('#decisions tbody tr').length > 8")
        assert browser.run("document.querySelector('#gantt').textContent").count("gpu-") == 2
        browser.wait_for_charts()
    assert browser.complaints == []
    assert browser.requests and all(url.startswith((fleet.url, "data:", "about:")) for url in browser.requests)


@pytest.mark.slow
def test_a_hostile_workflow_stays_text(fleet, browser):
    fleet.call(HOSTILE, HOSTILE)
    browser.open(fleet.url)
    browser.wait(
        f"[...document.querySelectorAll('#workflows .pick')].some(e => e.textContent === {json.dumps(HOSTILE)})"
    )
    browser.wait(
        f"[...document.querySelectorAll('#decisions .pick')].some(e => e.textContent === {json.dumps(HOSTILE)})"
    )
    browser.run(
        f"[...document.querySelectorAll('#decisions .pick')].find(e => e.textContent === {json.dumps(HOSTILE)}).click()"
    )
    browser.wait("document.getElementById('receipt-body').textContent.includes('<img')")
    browser.wait("document.querySelectorAll('#gantt .point').length > 0")
    browser.run("document.getElementById('receipt').close()")
    browser.run("document.getElementById('gantt').scrollIntoView()")

    def told():
        # Bars move on with every look, so the mouse follows one.
        x, y = browser.run(
            "(() => { const bars = [...document.querySelectorAll('#gantt .point path')]; const box = "
            "bars.at(-1).getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for shift in (3, 0):
            browser.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y + shift)
        return browser.run("document.querySelectorAll('#gantt .hovertext').length > 0")

    until(told, "the bar's text")
    assert browser.run("document.title") == "HexOpt"
    assert browser.run("document.querySelectorAll('main img, dialog img, main script').length") == 0
    assert not any("missing" in url for url in browser.requests)
    assert browser.complaints == []


@pytest.mark.slow
def test_a_receipt_says_why(fleet, browser):
    fleet.call("asked", "evaluate")
    browser.open(fleet.url)
    browser.wait("document.querySelectorAll('#decisions .pick').length > 0")
    browser.run("document.querySelector('#decisions .pick').focus()")
    browser.press("Enter")
    browser.wait("document.querySelectorAll('#receipt-body table').length > 0")
    found = browser.run("document.getElementById('receipt-body').innerText")
    assert "gpu-0" in found and "gpu-1" in found and "was chosen" in found and "asked" in found
    assert browser.run("document.querySelectorAll('#receipt-body tr[data-chosen] th')[0].textContent").startswith("✓")
    browser.press("Escape")
    browser.wait("!document.getElementById('receipt').open")


@pytest.mark.slow
def test_policy_and_shadow_switch_through_the_page(fleet, browser):
    dispatcher = fleet.application.service.dispatcher
    browser.open(fleet.url)
    browser.wait(LIVE)
    browser.wait("document.getElementById('policy').value === 'rolling-horizon'")
    for form, value in (("policy", "greedy-urgency"), ("shadow", "round-robin")):
        browser.run(f"document.getElementById('{form}').value = '{value}'")
        browser.run(f"document.querySelector('#{form}-form button').focus()")
        browser.press("Enter")
        browser.wait(f"document.querySelector('#{form}-form button').disabled === false")
    until(lambda: dispatcher.policy.name == "greedy-urgency" and dispatcher.shadow is not None)
    assert dispatcher.shadow.name == "round-robin"
    browser.wait("document.getElementById('objective').hidden")
    fleet.call("compared", "revise")
    browser.wait("/round-robin would have decided/.test(document.getElementById('shadow-counts').textContent)")
    browser.run("document.getElementById('policy').value = 'rolling-horizon'")
    browser.run("document.getElementById('shadow').value = ''")
    for form in ("policy", "shadow"):
        browser.run(f"document.querySelector('#{form}-form button').click()")
    until(lambda: dispatcher.policy.name == "rolling-horizon" and dispatcher.shadow is None)
    browser.wait("!document.getElementById('objective').hidden")
    assert browser.complaints == []


@pytest.mark.slow
def test_weights_are_set_by_keyboard(fleet, browser):
    browser.open(fleet.url)
    browser.wait("document.getElementById('weight-late-slider') !== null")
    browser.run("document.querySelector('#preset-form button').focus()")
    for _ in range(len("tl")):  # tardiness' slider and number come before late's
        browser.press("Tab")
    browser.press("Tab")
    assert browser.run("document.activeElement.id") == "weight-late-slider"
    before = float(browser.run("document.getElementById('weight-late').value"))
    for _ in range(5):
        browser.press("ArrowRight")
    after = float(browser.run("document.getElementById('weight-late').value"))
    assert after > before
    browser.run("document.getElementById('apply').focus()")
    browser.press("Enter")
    dispatcher = fleet.application.service.dispatcher
    until(lambda: f"late={after}" in dispatcher.policy.objective)
    browser.wait("document.getElementById('apply').disabled")
    browser.run("document.getElementById('preset').value = 'latency'")
    browser.run("document.querySelector('#preset-form button').click()")
    until(lambda: dispatcher.policy.objective == "latency")
    browser.wait("document.getElementById('weight-urgency').value === '0'")
    assert browser.complaints == []


@pytest.mark.slow
def test_an_instance_is_drained_and_resumed(fleet, browser):
    browser.open(fleet.url)
    browser.wait(LIVE)
    for does, state in (("Drain", "draining"), ("Resume", "up")):
        browser.run(f"document.querySelector('button[aria-label=\"{does} gpu-1\"]').click()")
        browser.wait(f"document.querySelectorAll('#instances .state')[1].textContent === '{state}'")
    assert fleet.application.service.dispatcher.servers[1].state.value == "up"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_fits_its_width_and_names_every_control(fleet, browser, width, scheme):
    fleet.call("w" * 200, "k" * 200)
    browser.open(fleet.url, width=width, scheme=scheme)
    browser.wait(LIVE)
    browser.wait_for_charts()
    assert browser.run("document.documentElement.scrollWidth") <= width
    nameless = browser.run(
        "[...document.querySelectorAll('button, select, input')].filter(e => !e.labels?.length && "
        "!e.getAttribute('aria-label') && !e.textContent.trim()).map(e => e.outerHTML)"
    )
    assert nameless == []
    assert browser.run("[...document.querySelectorAll('table')].every(t => t.caption)")


@pytest.mark.slow
def test_asks_for_the_key_and_says_when_the_service_is_gone(browser):
    fleet = Fleet(key="secret")
    try:
        assert get(f"{fleet.url}/v1/state")[0] == 401
        browser.open(fleet.url)
        for key, error in (("wrong", "That key is wrong."), ("secret", None)):
            browser.wait("document.getElementById('key-dialog').open")
            browser.wait("document.activeElement.id === 'key'")
            browser.type(key)
            browser.press("Enter")
            if error:
                browser.wait(f"document.getElementById('key-error').textContent === '{error}'")
        browser.wait(LIVE)
        assert not browser.run("document.getElementById('key-dialog').open")
    finally:
        fleet.close()
    browser.wait("/does not answer/.test(document.getElementById('connection').textContent)")


@pytest.mark.slow
def test_a_proposal_is_applied_through_the_page(fleet, browser, tmp_path):
    from hexopt.service.tuning import Proposal, Tuner

    service = fleet.application.service
    settings = ServiceSettings(store=f"sqlite:///{tmp_path / 'traffic.db'}", tune="propose")
    dispatcher = service.dispatcher
    dispatcher.policy = make_policy("rolling-horizon")
    service.tuner = Tuner(
        settings, lambda: dispatcher.policy, dispatcher.use, lambda: dispatcher.cluster, service.workflows
    )
    browser.open(fleet.url)
    try:
        browser.wait("/has not searched yet/.test(document.getElementById('tuning-note').textContent)")
        assert browser.run("document.getElementById('proposal').hidden")
        gains = [
            {"goal": "p95", "mean": 0.1, "low": 0.05, "high": 0.15},
            {"goal": "attainment", "mean": -0.001, "low": -0.01, "high": 0.008},
        ]
        service.tuner.proposal = Proposal("one", "deadline:late=7", "deadline", "better", gains, time.time())
        browser.wait("!document.getElementById('proposal').hidden")
        shown = browser.run("document.getElementById('proposal').innerText")
        assert "deadline:late=7" in shown and "-9.5% (-4.9% to -13.9%)" in shown
        assert "-0.1 points (-1.0 to +0.8)" in shown
        browser.run("document.getElementById('accept').click()")
        until(lambda: dispatcher.policy.objective == "deadline:late=7")
        browser.wait("document.getElementById('weight-late').value === '7'")
        browser.wait("document.getElementById('proposal').hidden")
        assert service.tuner.proposal.state in ("applied", "kept")
        assert browser.complaints == []
    finally:
        service.tuner = None
